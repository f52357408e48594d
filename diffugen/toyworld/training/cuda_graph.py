"""Steps of a small model on a GPU, whose thousands of small kernels else wait for Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP_CALLS = 3  # in which libraries set themselves up, which cannot be recorded


class CudaGraph:
    """A function of tensors, recorded as a CUDA graph for each shape of its first input and replayed from then on.

    The function must not read a value back from the GPU and must set gradients to None before it makes new ones; what
    it changes (weights, an optimizer's state) changes in place, with every call.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._calls: Counter[torch.Size] = Counter()
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's output, a tensor of the caller's own."""
        shape = inputs[0].shape
        if shape not in self._recorded:
            self._calls[shape] += 1
            if self._calls[shape] <= _WARM_UP_CALLS:
                return self._warm_up(inputs)
            self._recorded[shape] = self._record(inputs)
        graph, own, output = self._recorded[shape]
        for mine, given in zip(own, inputs, strict=True):
            mine.copy_(given)
        graph.replay()
        return output.clone()

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """A call as it is, on a stream of its own, as recording is."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            output = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        own, graph = tuple(given.clone() for given in inputs), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._function(*own)
        return graph, own, output
