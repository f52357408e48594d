"""A fine-tuned detector averaged with the base detector, weight by weight.

WiSE-FT (Wortsman et al., Robust fine-tuning of zero-shot models, 2022). Labels that were made by machines are a little
wrong everywhere, and images that were generated are not quite photos; what the base knew of outlines and of other
classes comes back, and what was learned stays (docs/measurements.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diffugen.detector.class_rows import class_branches
from diffugen.detector.model import network_of

if TYPE_CHECKING:
    from ultralytics import YOLO

KEPT = 0.3
"""Share of the base in the average. New classes of the toy world lose with more, photographs still gain."""


@torch.no_grad()
def average_with(tuned: YOLO, base: YOLO, kept: float = KEPT) -> None:
    """Average a fine-tuned segmenter with the base detector, in place.

    The branches that tell classes stay as they were tuned, else new classes would be found with less confidence; so do
    layers of another shape.

    Args:
        tuned, base: from `load_detector`.
        kept: share of the base.
    """
    classes = {id(value) for branch in class_branches(tuned) for value in branch.state_dict(keep_vars=True).values()}
    base_weights = network_of(base).state_dict()
    for key, value in network_of(tuned).state_dict(keep_vars=True).items():
        other = base_weights.get(key)
        if other is None or other.shape != value.shape or not value.is_floating_point() or id(value) in classes:
            continue
        value.data.copy_((1 - kept) * value.float() + kept * other.to(value.device).float())
