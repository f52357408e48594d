"""Reading a UNet's cross-attention while it runs, without changing what it computes.

The probabilities are those of DAAM (Tang et al. 2023, "What the DAAM: Interpreting Stable Diffusion Using
Cross Attention"): the cross-attention of the down and up blocks, brought to the latents' size by bicubic
interpolation and averaged over heads, layers, steps and the phrase's tokens (DAAM itself sums over the
steps). They are read by hooks on the query and key projections: the pipeline's own attention processors stay
in place, memory-efficient ones too, and the image stays the same to the last bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DAAM_FACTORS = (1, 2, 4)
"""Latents' side over map's side, for the maps that DAAM uses: all but the coarsest of Stable Diffusion."""

DAAM_BLOCKS = ("down", "up")
"""The blocks that DAAM uses: all but the middle."""

MAX_LOGITS = 2**24
"""Most attention logits held at once (64 MiB of float32), whatever the batch and image size."""


class AttentionCapture:
    """Context manager that accumulates the cross-attention of phrases while a UNet runs.

    What is kept: one float32 map per row, phrase and resolution, on the UNet's device; no map per head, layer
    or step.

    Args:
        unet: any UNet2DConditionModel.
        token_indices: for every row of the batch, for every phrase, the positions of its tokens.
        latent_hw: height and width of the latents.
        factors: resolutions to keep, as the latents' side over the map's side (a power of two).
        blocks: of the UNet, "down" or "up" or both.
        text: another text to attend than the one that the UNet is given, [rows, tokens, width] as its text
            encoder makes it. Its keys are made once per layer and kept.

    While `active` is False, nothing is read.

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
        self.layers = attention_layers(unet, "attn2", blocks)
        self.latent_hw = latent_hw
        self.num_phrases = [len(phrases) for phrases in token_indices]
        self.token_indices = token_indices
        self.weights: Tensor | None = None  # as many tokens as the text has: known once the UNet runs
        self.map_hw = map_sizes(latent_hw)
        self.factors = frozenset(factors)
        self.text = text
        self._text_keys: dict[Any, Tensor] = {}
        self.active = True
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, int] = defaultdict(int)
        self._taps = ExitStack()

    def __enter__(self) -> AttentionCapture:
        self._taps.enter_context(tapped(self.layers, self._accumulate))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taps.close()

    def forget(self) -> None:
        """Begin anew: what was accumulated so far does not count."""
        self.sums.clear()
        self.counts.clear()

    @property
    def num_tokens(self) -> int:
        """How many tokens of the text share the attention, padding included; 0 before the UNet has run."""
        return 0 if self.weights is None else self.weights.shape[1]

    def maps(self) -> list[np.ndarray]:
        """For every row, float32 [num_phrases, h, w] at the latents' size: mean attention probabilities.

        Negative values, which bicubic interpolation makes beside a sharp peak, are set to 0, once per
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

    @torch.no_grad()
    def _accumulate(self, layer: Any, query: Tensor, key: Tensor) -> None:
        map_hw, factor = self._map_size(query.shape[1])
        if not self.active or factor not in self.factors or not any(self.num_phrases):
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


@dataclass
class _QueryKeyTap:
    """Pairs the query and key projections of one attention layer's call."""

    layer: Any
    use: Callable[[Any, Tensor, Tensor], None]
    query: Tensor | None = field(default=None, init=False)

    def on_query(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.query = output

    def on_key(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        query, self.query = self.query, None  # keep nothing alive between the calls
        if query is not None:
            self.use(self.layer, query, output)


@contextmanager
def tapped(layers: Iterable[Any], use: Callable[[Any, Tensor, Tensor], None]) -> Iterator[None]:
    """Have `use(layer, query, key)` called whenever one of the layers runs inside the `with` block."""
    with ExitStack() as hooks:
        for layer in layers:
            tap = _QueryKeyTap(layer, use)
            hooks.callback(layer.to_q.register_forward_hook(tap.on_query).remove)
            hooks.callback(layer.to_k.register_forward_hook(tap.on_key).remove)
        yield


def attention_layers(unet: nn.Module, name: str, blocks: Sequence[str] = DAAM_BLOCKS) -> list[Any]:
    """The cross-attention ("attn2") or self-attention ("attn1") modules of the "down" or "up" blocks, or both."""
    starts = tuple(f"{block}_blocks." for block in blocks)
    return [module for path, module in unet.named_modules() if path.endswith(name) and path.startswith(starts)]


def conditional_rows(batch: Tensor, rows: int) -> Tensor:
    """The rows that belong to the prompts; with guidance the negative prompts' rows come first.

    Raises:
        RuntimeError: the batch is neither `rows` nor twice as many.
    """
    if batch.shape[0] not in (rows, 2 * rows):
        raise RuntimeError(f"expected {rows} rows, or {2 * rows} with guidance, but the UNet ran {batch.shape[0]}")
    return batch[-rows:]


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


def split_heads(layer: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key of an attention module as [rows, heads, pixels or tokens, dim], after its norms.

    Of the model's precision: make them float32 before multiplying them, as in float16 the logits of some models
    (Stable Diffusion 2.1) overflow.
    """
    query, key = (side.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for side in (query, key))
    query = layer.norm_q(query) if layer.norm_q is not None else query
    key = layer.norm_k(key) if layer.norm_k is not None else key
    return query, key


def _token_weights(token_indices: Sequence[Sequence[Sequence[int]]], num_tokens: int) -> Tensor:
    """The phrases' means over the tokens, float32 [rows, tokens, phrases].

    Phrases without a token, and rows with fewer phrases than others, have weight 0.
    """
    weights = torch.zeros(len(token_indices), num_tokens, max(map(len, token_indices), default=0))
    for row, phrases in enumerate(token_indices):
        for column, phrase in enumerate(phrases):
            weights[row, list(phrase), column] = 1 / max(1, len(phrase))
    return weights


def map_sizes(latent_hw: tuple[int, int]) -> dict[int, tuple[tuple[int, int], int]]:
    """Number of pixels -> ((h, w), factor) of every map that halving can give, odd sides rounded up."""
    sizes = {}
    (height, width), factor = latent_hw, 1
    while height * width not in sizes:
        sizes[height * width] = (height, width), factor
        height, width, factor = (height + 1) // 2, (width + 1) // 2, factor * 2
    return sizes
