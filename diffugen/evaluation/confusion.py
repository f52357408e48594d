"""Which class detections have where they meet objects of each class: a confusion matrix."""

from __future__ import annotations

import numpy as np

from diffugen.instances import Instances
from diffugen.masks.matching import match_instances


class ConfusionMatrix:
    """Counts of objects by their true and their predicted class, matched by mask IoU whatever their classes.

    Args:
        num_classes: class ids are below it.
        iou_threshold: below it a detection meets nothing.

    Attributes:
        counts: int64 [num_classes + 1, num_classes + 1]; rows are true classes, columns predicted ones. The last
            column counts objects that were missed, the last row detections where there is nothing.
    """

    def __init__(self, num_classes: int, iou_threshold: float = 0.5) -> None:
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        self._iou_threshold = iou_threshold

    def add(self, pred: Instances, truth: Instances) -> None:
        """Count one image."""
        nothing = len(self.counts) - 1
        matched = match_instances(pred, truth, self._iou_threshold, same_class=False).pairs
        true, found = (np.full(len(side), nothing) for side in (pred, truth))
        true[matched[:, 0]] = truth.class_ids[matched[:, 1]]
        found[matched[:, 1]] = pred.class_ids[matched[:, 0]]
        np.add.at(self.counts, (true, pred.class_ids), 1)
        missed = found == nothing
        np.add.at(self.counts, (truth.class_ids[missed], np.full(int(missed.sum()), nothing)), 1)
