"""Labels that several labelers share: one mask per object that a detector and another labeler both see."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffugen.instances import Instances
from diffugen.masks.matching import match_instances
from diffugen.masks.outline.base import OutlinePrompt, Outliner, others_of

SAME_OBJECT = 0.3
"""Least IoU of two labelers' masks of one object."""


def consensus(image: np.ndarray, labels: Mapping[str, Instances], outliner: Outliner) -> Instances:
    """The objects that the detector and the first other labeler both see, each outlined from all labelers' masks of it.

    That is attention where there is a model. It errs where an object's parts draw little notice, a detector where
    outlines are fine; where they agree both are right more often than either. A further labeler has its say about the
    objects that it sees as well.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: by labeler, with "detector" and another among them.
        outliner: makes one mask of several.

    Returns:
        Disjoint instances, in the detector's order. Scores are the outliner's confidence; where it has none, the mean
        IoU of the labelers' masks with the outline.
    """
    detector = labels["detector"]
    seen = {name: _partners(detector, other) for name, other in labels.items() if name != "detector"}
    chosen, views = sorted(seen[next(iter(seen))]), []
    for index in chosen:
        others = [labels[name].masks[partners[index]] for name, partners in seen.items() if index in partners]
        views.append(np.stack([detector.masks[index], *others]))
    if not chosen:
        return Instances.empty(detector.size_hw)
    rivals = others_of(np.stack([view.any(axis=0) for view in views]))
    outlines = outliner.outline(image, [OutlinePrompt(*pair) for pair in zip(views, rivals, strict=True)])
    probabilities = np.stack([outline.probability for outline in outlines])
    cuts = (probabilities > 0.5) & (probabilities == probabilities.max(axis=0))
    # a pixel that two outlines want alike goes to the object that more labelers see there
    support = np.stack([np.where(cut, view.mean(axis=0), -1.0) for cut, view in zip(cuts, views, strict=True)])
    masks = cuts & (support.argmax(axis=0) == np.arange(len(cuts))[:, None, None])
    agreement = [np.mean([_iou(mask, one) for one in view]) for mask, view in zip(masks, views, strict=True)]
    sure = [outline.confidence for outline in outlines]
    scores = [float(own if known is None else known) for known, own in zip(sure, agreement, strict=True)]
    return Instances.from_masks(masks, detector.class_ids[chosen], scores).subset(masks.any(axis=(1, 2)))


def _partners(detector: Instances, other: Instances) -> dict[int, int]:
    """The detector's instances that another labeler sees too -> its index there."""
    matched = match_instances(detector, other, iou_threshold=SAME_OBJECT, same_class=True)
    return {int(index): int(partner) for index, partner in matched.pairs}


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))
