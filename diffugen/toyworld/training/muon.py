"""Muon: an optimizer whose every step has all of its singular values alike, for matrices and convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration: steepest at zero, at the price of singular values of 0.7 to 1.2."""


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").

    torch's own Muon takes matrices only; here a convolution is the matrix of its flattened kernels, and weights of
    one shape are orthogonalised together, which a GPU needs. Steps are scaled to the size of AdamW's (Liu et al. 2025,
    "Muon is scalable for LLM training"), so the same rates serve both.

    Args:
        params: weights of two or more dimensions.
        lr: rate; a tensor where the step is recorded as a CUDA graph.
        momentum: Nesterov's.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float | Tensor, *, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step down; weights without a gradient stay."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.flatten(1).shape].append(weight)
            for shape, weights in alike.items():
                directions = torch.stack([self._direction(weight, group["momentum"]) for weight in weights])
                size = 0.2 * max(shape) ** 0.5  # the root mean square of an AdamW step is about 0.2
                steps = orthogonalised(directions) * (group["lr"] * size)
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(weights, [step.view_as(own) for step, own in zip(steps, weights, strict=True)])

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        average = state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(average, momentum).flatten(1)


def orthogonalised(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """Matrices [..., m, n] with all singular values brought near 1, by Newton-Schulz iterations in bfloat16."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = (matrices.mT if tall else matrices).bfloat16()
    wide = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    for _ in range(num_iterations):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide.mT if tall else wide).to(matrices.dtype)


def is_hidden(name: str, weight: Tensor) -> bool:
    """Whether Muon should train a weight: of two or more dimensions, neither embedding nor first or last layer."""
    return weight.ndim >= 2 and not any(part in name for part in ("embedding", "conv_in", "conv_out"))
