"""Labels that several labelers share: one mask per object that attention and a detector both see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffugen.instances import Instances
from diffugen.masks.graph_cut import agreed_cut
from diffugen.masks.matching import match_instances
from diffugen.masks.refinement import WORKING_SIDE, at_most, resize_masks

SAME_OBJECT = 0.3
"""Least IoU of two labelers' masks of one object."""


def consensus(image: np.ndarray, labels: Mapping[str, Instances]) -> Instances:
    """The objects that attention and the detector both see, each with a mask cut from all labelers' masks of it.

    Attention errs where an object's parts draw little notice, a detector where outlines are fine; where they agree both
    are right more often than either. A further labeler has its say about the objects that it sees as well.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: by labeler, with "attention" and "detector" among them.

    Returns:
        Disjoint instances, in the detector's order; scores are the mean IoU of the labelers' masks with the cut.
    """
    detector = labels["detector"]
    seen = {name: _partners(detector, other) for name, other in labels.items() if name != "detector"}
    small = at_most(image, WORKING_SIDE)
    chosen, views, cuts = sorted(seen["attention"]), [], []
    for index in chosen:
        others = [labels[name].masks[partners[index]] for name, partners in seen.items() if index in partners]
        views.append(resize_masks(np.stack([detector.masks[index], *others]), small.shape[:2]))
        cuts.append(agreed_cut(small, views[-1]))
    if not chosen:
        return Instances.empty(detector.size_hw)
    support = np.stack([np.where(cut, view.mean(axis=0), -1.0) for cut, view in zip(cuts, views, strict=True)])
    owner = support.argmax(axis=0)  # a pixel that two cuts want goes to the object that more labelers see there
    cuts = [cut & (owner == number) for number, cut in enumerate(cuts)]
    scores = [float(np.mean([_iou(cut, mask) for mask in view])) for cut, view in zip(cuts, views, strict=True)]
    masks = resize_masks(np.stack(cuts), detector.size_hw)
    found = Instances.from_masks(masks, detector.class_ids[chosen], scores)
    return found.subset(masks.any(axis=(1, 2)))


def _partners(detector: Instances, other: Instances) -> dict[int, int]:
    """The detector's instances that another labeler sees too -> its index there."""
    matched = match_instances(detector, other, iou_threshold=SAME_OBJECT, same_class=True)
    return {int(index): int(partner) for index, partner in matched.pairs}


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))
