"""What the captures of cross-attention and self-attention share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diffugen.attention.hooks import tapped


class Capture(ABC):
    """Context manager that accumulates the attention of some layers while a UNet runs, without changing its results.

    While `active` is False, nothing is captured.

    Args:
        layers: attention modules, see `attention_layers`.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers
        self.active = True
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        self._hooks.enter_context(tapped(self.layers, self._on_call))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()

    @abstractmethod
    def reset(self) -> None:
        """Discard what has been accumulated."""

    @abstractmethod
    def maps(self) -> list[np.ndarray]:
        """The mean attention of every row of the batch."""

    @abstractmethod
    def accumulate(self, layer: Any, query: Tensor, key: Tensor) -> None:
        """Add one call of a layer.

        Args:
            layer: the attention module.
            query, key: its projections, [rows, pixels or tokens, heads * dim].
        """

    @torch.no_grad()
    def _on_call(self, layer: Any, query: Tensor, key: Tensor) -> None:
        if self.active:
            self.accumulate(layer, query, key)
