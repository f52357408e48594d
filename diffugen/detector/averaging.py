"""A fine-tuned detector averaged with the one that it was fine-tuned from, weight by weight.

WiSE-FT (Wortsman et al., Robust fine-tuning of zero-shot models, 2022). Labels that were made by machines are a little
wrong everywhere, and images that were generated are not quite photos; what the base knew of outlines and of other
classes comes back, and what was learned stays (docs/measurements.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from diffugen.detector.class_rows import last_layers
from diffugen.detector.model import network_of

if TYPE_CHECKING:
    from ultralytics import YOLO

KEPT = 0.3
"""Share of the start in the average. New classes of the toy world lose with more, photographs still gain."""


@dataclass(frozen=True)
class Start:
    """What a detector was before it was fine-tuned.

    Attributes:
        weights: a copy of its state.
        names: of its classes, by number.
    """

    weights: Mapping[str, torch.Tensor]
    names: Mapping[int, str]

    @classmethod
    def of(cls, yolo: YOLO) -> Start:
        """A detector as it is now."""
        state = network_of(yolo).state_dict()
        return cls({key: value.detach().clone().cpu() for key, value in state.items()}, dict(yolo.names))


@torch.no_grad()
def average_with(tuned: YOLO, start: Start, kept: float = KEPT) -> None:
    """Average a fine-tuned segmenter with its start, in place.

    Layers of another shape stay as they were tuned, and so do the rows of the class head unless both have the same
    classes.

    Args:
        tuned: from `load_detector`.
        start: what it was fine-tuned from.
        kept: share of the start.
    """
    network = network_of(tuned)
    rows = set() if dict(tuned.names) == dict(start.names) else {id(one) for one in _row_parameters(tuned)}
    for key, value in network.state_dict(keep_vars=True).items():
        other = start.weights.get(key)
        if other is not None and other.shape == value.shape and value.is_floating_point() and id(value) not in rows:
            value.data.copy_((1 - kept) * value.float() + kept * other.to(value.device).float())


def _row_parameters(yolo: YOLO) -> list[torch.nn.Parameter]:
    return [parameter for layer in last_layers(yolo) for parameter in layer.parameters()]
