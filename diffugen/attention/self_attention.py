"""A UNet's self-attention, captured while it runs: which pixels attend to which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
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
from diffugen.errors import UserError

MAX_AFFINITY_PIXELS = 48 * 48
"""Most pixels of an affinity map: 20 MiB of float32 per image on the device, 10 MiB of float16 on disk."""


class SelfAttentionCapture(Capture):
    """Accumulates the self-attention of one resolution while a UNet runs.

    What is kept: one float32 [pixels, pixels] sum per image, on the UNet's device; nothing per head, layer or
    step.

    Args:
        unet: any UNet2DConditionModel.
        rows: number of images in a batch.
        latent_hw: height and width of the latents.
        factor: the resolution, as the latents' side over the map's side.
        blocks: of the UNet, "down" or "up" or both.

    Raises:
        UserError: the maps would have more than `MAX_AFFINITY_PIXELS` pixels.
        RuntimeError: as `CrossAttentionCapture`.
    """

    def __init__(
        self,
        unet: nn.Module,
        rows: int,
        latent_hw: tuple[int, int],
        factor: int,
        blocks: Sequence[str] = DAAM_BLOCKS,
    ) -> None:
        super().__init__(attention_layers(unet, "attn1", blocks))
        self.rows = rows
        self.map_hw = next((size for size, other in map_sizes(latent_hw).values() if other == factor), (1, 1))
        self.num_pixels = math.prod(self.map_hw)
        if self.num_pixels > MAX_AFFINITY_PIXELS:
            raise UserError(
                f"generate.attention.self_attention_factor {factor} makes maps of {self.map_hw[0]}x{self.map_hw[1]} "
                f"pixels, more than {MAX_AFFINITY_PIXELS}; choose a larger factor or a smaller image"
            )
        self.factor = factor
        self.total: Tensor | None = None

    def reset(self) -> None:
        """Discard what has been accumulated."""
        self.total = None

    def maps(self) -> list[np.ndarray]:
        """For every row, float16 [h, w, h, w]: entry [y, x] is where pixel (y, x) looks, its sum 1."""
        if self.total is None:
            raise RuntimeError(f"no self-attention at factor {self.factor} was seen; choose a factor that the UNet has")
        mean = self.total / self.total.sum(-1, keepdim=True)  # as many heads, layers and steps in every row
        return list(mean.unflatten(-1, self.map_hw).unflatten(1, self.map_hw).cpu().numpy().astype(np.float16))

    def accumulate(self, layer: Any, query: Tensor, key: Tensor) -> None:
        """Add one call of a layer, see `Capture`."""
        if query.shape[1] != self.num_pixels:
            return
        looks = summed_attention(layer, conditional_rows(query, self.rows), conditional_rows(key, self.rows))
        self.total = looks if self.total is None else self.total.add_(looks)


def summed_attention(layer: Any, query: Tensor, key: Tensor) -> Tensor:
    """Attention probabilities of one layer, float32 [rows, queries, keys], summed over its heads.

    Queries are taken in chunks, so that no more than `MAX_LOGITS` logits are held at once.
    """
    query, key = split_heads(layer, query, key)
    query, key = query.float(), key.float().transpose(-1, -2) * layer.scale
    chunk = max(1, MAX_LOGITS // (key.shape[0] * key.shape[1] * key.shape[-1]))
    parts = [(part @ key).softmax(-1).sum(1) for part in query.split(chunk, dim=2)]
    return torch.cat(parts, dim=1)
