"""The class-agnostic network of the learned outliner: a small U-Net from a window and a prompt to a mask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffugen.errors import UserError, reason_of

WORKING_SIZE = 112
"""Side of the window that the network sees, pixels."""

CHANNELS = 8
"""RGB, the prompt's mask, other objects, and the three maps of `heat_channels`."""

WIDTHS = (32, 64, 112, 160)
_FORMAT = "diffugen-outliner-1"


class OutlineNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) at half resolution, with a head that predicts its mask's IoU.

    That a mask head without classes carries over to classes it never saw is DeepMAC's finding (Birodkar et al. 2021).
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.widths = widths
        before = (CHANNELS * 4, *widths)
        self.down = nn.ModuleList(_block(before[k], width) for k, width in enumerate(widths))
        self.up = nn.ModuleList(_block(widths[k] + widths[k + 1], widths[k]) for k in reversed(range(len(widths) - 1)))
        self.to_mask = nn.Conv2d(widths[0], 4, 3, padding=1)
        self.to_iou = nn.Sequential(nn.Linear(widths[-1] + 2 * widths[0] + 4, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits float32 [n, size, size] and logits of the mask's IoU [n].

        Args:
            windows: float32 [n, CHANNELS, size, size], all in [0, 1]; size a multiple of 16.
        """
        prompt = windows[:, 3]
        x = F.pixel_unshuffle(windows * 2 - 1, 2)
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        deepest = x.mean(dim=(2, 3))
        for block, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        logits = F.pixel_shuffle(self.to_mask(x), 2)[:, 0]
        # the judge of a mask does not teach it
        found = torch.cat([deepest, *_summary(x, logits, prompt)], dim=1).detach()
        return logits, self.to_iou(found)[:, 0]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _summary(features: Tensor, logits: Tensor, prompt: Tensor) -> list[Tensor]:
    """What a mask's quality is predicted from: features inside and at its edge, the certainty of its pixels, and how
    much of the prompt it keeps."""
    tiny = 1e-4
    inside = logits.sigmoid()
    edge = inside * (1 - inside)
    small_inside, small_edge = (F.avg_pool2d(one[:, None], 2) for one in (inside, edge))
    inner = (features * small_inside).sum((2, 3)) / (small_inside.sum((2, 3)) + tiny)
    outer = (features * small_edge).sum((2, 3)) / (small_edge.sum((2, 3)) + tiny)
    certain = (inside * (inside > 0.5)).sum((1, 2)) / (inside.sum((1, 2)) + tiny)
    both, either = (inside * prompt).sum((1, 2)), torch.maximum(inside, prompt).sum((1, 2))
    numbers = [certain, edge.sum((1, 2)) / (inside.sum((1, 2)) + tiny), both / (either + tiny), inside.mean((1, 2))]
    return [inner, outer, torch.stack(numbers, dim=1)]


def save_network(network: OutlineNet, path: Path, record: Mapping[str, Any]) -> None:
    """Write float16 weights, with the record of the training in the file's metadata."""
    floats = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    weights = {name: value.half().contiguous() for name, value in floats.items()}
    save_file(weights, path, {"format": _FORMAT, "widths": json.dumps(network.widths), "record": json.dumps(record)})


def load_network(path: Path) -> OutlineNet:
    """Read what `save_network` wrote, ready to predict.

    Raises:
        UserError: there is no such file, or it is something else.
    """
    remedy = "give a file that `python -m diffugen.labelers.train_outliner` wrote"
    if not Path(path).is_file():
        raise UserError(f"outliner {path} does not exist; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata.get("format") != _FORMAT:
            raise ValueError("not the weights of an outliner")
        network = OutlineNet(tuple(json.loads(metadata["widths"])))
        network.load_state_dict(weights, strict=False)
        missing = [name for name in network.state_dict() if name not in weights and "num_batches" not in name]
        if missing:
            raise ValueError(f"without {missing[0]}")
        if not all(torch.isfinite(value).all() for value in weights.values()):
            raise ValueError("weights that are no numbers")
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"outliner {path} cannot be loaded ({reason_of(error)}); {remedy}") from None
    return network.eval()
