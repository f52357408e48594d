"""A UNet's cross-attention, captured while it runs, without changing its results.

The probabilities are those of DAAM (Tang et al. 2023, "What the DAAM: Interpreting Stable Diffusion Using
Cross Attention"): the cross-attention of the down and up blocks, brought to the latents' size by bicubic
interpolation and averaged over heads, layers, steps and the phrase's tokens (DAAM itself sums over the
steps). They are read by hooks on the query and key projections: the pipeline's own attention processors stay
in place, memory-efficient ones too, and the image stays the same to the last bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffugen.attention.capture import Capture
from diffugen.attention.hooks import (
    DAAM_BLOCKS,
    MAX_LOGITS,
    attention_layers,
    conditional_rows,
    map_sizes,
    split_heads,
)

DAAM_FACTORS = (1, 2, 4)
"""Latents' side over map's side, for the maps that DAAM uses: all but the coarsest of Stable Diffusion."""


class CrossAttentionCapture(Capture):
    """Accumulates the cross-attention of phrases while a UNet runs.

    What is kept: one float32 map per row, phrase and resolution, on the UNet's device; no map per head, layer
    or step.

    Args:
        unet: any UNet2DConditionModel.
        token_indices: for every row of the batch, for every phrase, the positions of its tokens.
        latent_hw: height and width of the latents.
        factors: resolutions to keep, as the latents' side over the map's side (a power of two).
        blocks: of the UNet, "down" or "up" or both.
        text: another text to attend than the one that the UNet is given, [rows, tokens, width] as its text
            encoder makes it. Its keys are computed once per layer and kept.

    Raises:
        RuntimeError: a hooked layer sees a batch that is neither the rows nor twice the rows (with guidance
            the first half is the unconditional one and is left out), or a map that is no halving of
            `latent_hw`.
    """

    def __init__(
        self,
        unet: nn.Module,
        token_indices: Sequence[Sequence[Sequence[int]]],
        latent_hw: tuple[int, int],
        *,
        factors: Sequence[int] = DAAM_FACTORS,
        blocks: Sequence[str] = DAAM_BLOCKS,
        text: Tensor | None = None,
    ) -> None:
        super().__init__(attention_layers(unet, "attn2", blocks))
        self.latent_hw = latent_hw
        self.num_phrases = [len(phrases) for phrases in token_indices]
        self.token_indices = token_indices
        self.weights: Tensor | None = None  # as many tokens as the text has: known once the UNet runs
        self.map_hw = map_sizes(latent_hw)
        self.factors = frozenset(factors)
        self.text = text
        self._text_keys: dict[Any, Tensor] = {}
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, int] = defaultdict(int)

    def reset(self) -> None:
        """Discard what has been accumulated."""
        self.sums.clear()
        self.counts.clear()

    @property
    def num_tokens(self) -> int:
        """How many tokens of the text share the attention, padding included; 0 before the UNet has run."""
        return 0 if self.weights is None else self.weights.shape[1]

    def maps(self) -> list[np.ndarray]:
        """For every row, float32 [num_phrases, h, w] at the latents' size: mean attention probabilities.

        Negative values, which bicubic interpolation produces next to a sharp peak, are set to 0, once per
        resolution. DAAM does so in every head and layer; where no head undershoots, the two are equal.
        """
        if not any(self.num_phrases):
            return [np.zeros((0, *self.latent_hw), np.float32) for _ in self.num_phrases]
        if not self.sums:
            raise RuntimeError(
                f"no cross-attention at factors {sorted(self.factors)} was seen; run the UNet inside the "
                "`with` block, neither fused nor compiled before, and choose factors that it has"
            )
        scaled = [
            F.interpolate(maps, self.latent_hw, mode="bicubic", align_corners=False).clamp_(min=0)
            for maps in self.sums.values()
        ]
        mean = (torch.stack(scaled).sum(0) / sum(self.counts.values())).cpu().numpy()
        return [row[:num] for row, num in zip(mean, self.num_phrases, strict=True)]

    def accumulate(self, layer: Any, query: Tensor, key: Tensor) -> None:
        """Add one call of a layer, see `Capture`."""
        map_hw, factor = self._map_size(query.shape[1])
        if factor not in self.factors or not any(self.num_phrases):
            return
        rows = len(self.num_phrases)
        query = conditional_rows(query, rows)
        key = conditional_rows(key, rows) if self.text is None else self._text_key(layer)
        if self.weights is None:  # once: copying to a GPU in every layer would stall it
            weights = _token_weights(self.token_indices, key.shape[1])
            if query.is_cuda:  # whose fused kernels take columns by eights; `maps` leaves those of no phrase out
                weights = F.pad(weights, (0, -weights.shape[2] % 8)).to(query.dtype)
            self.weights = weights.to(query.device)
        heat = phrase_attention(layer, query, key, self.weights).unflatten(-1, map_hw)
        self.sums[factor] = self.sums[factor].add_(heat) if factor in self.sums else heat
        self.counts[factor] += layer.heads

    def _text_key(self, layer: Any) -> Tensor:
        if layer not in self._text_keys:
            self._text_keys[layer] = layer.to_k(self.text)  # its hook has no query then, and stays quiet
        return self._text_keys[layer]

    def _map_size(self, num_pixels: int) -> tuple[tuple[int, int], int]:
        if num_pixels not in self.map_hw:
            raise RuntimeError(f"an attention map of {num_pixels} pixels is no halving of the latents {self.latent_hw}")
        return self.map_hw[num_pixels]


def phrase_attention(layer: Any, query: Tensor, key: Tensor, weights: Tensor) -> Tensor:
    """Attention probabilities of phrases, summed over heads.

    Args:
        layer: the attention module: its number of heads, its scale, its query and key norms.
        query: [rows, pixels, heads * dim], the projected image.
        key: [rows, tokens, heads * dim], the projected text.
        weights: [rows, tokens, phrases], each column the mean over one phrase's tokens: float32 on a CPU, on a GPU
            of the query's dtype and with columns by eights.

    Returns:
        float32 [rows, phrases, pixels]. The softmax is in float32, over all tokens.
    """
    read = _fused if query.is_cuda else _in_chunks
    return read(layer, *split_heads(layer, query, key), weights)


def _fused(layer: Any, query: Tensor, key: Tensor, weights: Tensor) -> Tensor:
    """Attention whose values are the phrases' weights: on a GPU one kernel that keeps no logits, where torch has one.

    Products are of the model's precision, their sums and the softmax float32.
    """
    values = weights.to(query.dtype)[:, None].expand(-1, query.shape[1], -1, -1)
    heat = F.scaled_dot_product_attention(query, key, values, scale=layer.scale)
    return heat.sum(1, dtype=torch.float32).transpose(-1, -2)


def _in_chunks(layer: Any, query: Tensor, key: Tensor, weights: Tensor) -> Tensor:
    """Softmax, summed over heads, times the weights: on a CPU faster. Memory stays below a few `MAX_LOGITS`."""
    query, key = query.float(), key.float().transpose(-1, -2) * layer.scale
    chunk = max(1, MAX_LOGITS // (key.shape[0] * key.shape[1] * key.shape[-1]))
    parts = [
        (pixels @ key).softmax(-1).sum(1) @ weights  # [rows, pixels, phrases]
        for pixels in query.split(chunk, dim=2)
    ]
    return torch.cat(parts, dim=1).transpose(-1, -2)


def _token_weights(token_indices: Sequence[Sequence[Sequence[int]]], num_tokens: int) -> Tensor:
    """The phrases' means over the tokens, float32 [rows, tokens, phrases].

    Phrases without a token, and rows with fewer phrases than others, have weight 0.
    """
    weights = torch.zeros(len(token_indices), num_tokens, max(map(len, token_indices), default=0))
    for row, phrases in enumerate(token_indices):
        for column, phrase in enumerate(phrases):
            weights[row, list(phrase), column] = 1 / max(1, len(phrase))
    return weights
