"""Hooks on a UNet's attention layers: which layers count, and their queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

DAAM_BLOCKS = ("down", "up")
"""The blocks that DAAM uses: all but the middle."""


MAX_LOGITS = 2**24
"""Most attention logits held at once (64 MiB of float32), whatever the batch and image size."""


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
    prefixes = tuple(f"{block}_blocks." for block in blocks)
    return [module for path, module in unet.named_modules() if path.endswith(name) and path.startswith(prefixes)]


def conditional_rows(batch: Tensor, rows: int) -> Tensor:
    """The rows that belong to the prompts; with guidance the negative prompts' rows come first.

    Raises:
        RuntimeError: the batch is neither `rows` nor twice as many.
    """
    if batch.shape[0] not in (rows, 2 * rows):
        raise RuntimeError(f"expected {rows} rows, or {2 * rows} with guidance, but the UNet ran {batch.shape[0]}")
    return batch[-rows:]


def split_heads(layer: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key of an attention module as [rows, heads, pixels or tokens, dim], after its norms.

    Of the model's precision: make them float32 before multiplying them, as in float16 the logits of some models
    (Stable Diffusion 2.1) overflow.
    """
    query, key = (side.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for side in (query, key))
    query = layer.norm_q(query) if layer.norm_q is not None else query
    key = layer.norm_k(key) if layer.norm_k is not None else key
    return query, key


def map_sizes(latent_hw: tuple[int, int]) -> dict[int, tuple[tuple[int, int], int]]:
    """Number of pixels -> ((h, w), factor) of every map that halving can give, odd sides rounded up."""
    sizes = {}
    (height, width), factor = latent_hw, 1
    while height * width not in sizes:
        sizes[height * width] = (height, width), factor
        height, width, factor = (height + 1) // 2, (width + 1) // 2, factor * 2
    return sizes
