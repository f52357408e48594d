"""Photos that nobody described: what only some labelers take for an object is neither object nor background.

A detector learns that everything without a label is background. So where labelers disagree the photo is made grey, as
ultralytics pads images; then it can be trained on for the sake of the objects on which they agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diffugen.masks.matching import mask_iou
from diffugen.sample import Sample

GREY = 114
"""What ultralytics pads images with."""
SAME_OBJECT = 0.3
"""Least IoU of a labeler's mask with a label for it to be of the same object."""


def is_partly_known(sample: Sample) -> bool:
    """Whether labels may be missing in an image: nobody said, and no person drew, what it shows."""
    return sample.is_photo and not sample.prompt.is_known and sample.labeler != "person"


def doubtful_boxes(sample: Sample) -> np.ndarray:
    """Boxes around what some labeler found in an image and what is not among its labels: int64 [n, 4], x1 y1 x2 y2."""
    labels, boxes = sample.instances, [np.zeros((0, 4))]
    for labeler in sample.encoded_labels:
        found = sample.labels(labeler)
        if len(found):
            known = mask_iou(found.masks, labels.masks).max(axis=1, initial=0) >= SAME_OBJECT
            boxes.append(found.xyxy[~known])
    stacked = np.concatenate(boxes)
    return np.concatenate([np.floor(stacked[:, :2]), np.ceil(stacked[:, 2:])], axis=1).astype(np.int64)


def without_doubtful(sample: Sample) -> Sample:
    """A sample whose image is grey where labelers disagree, its labels' own pixels apart; itself where they do not."""
    if not is_partly_known(sample):
        return sample
    boxes = doubtful_boxes(sample)
    if not len(boxes):
        return sample
    hidden = np.zeros(sample.size_hw, bool)
    for left, top, right, bottom in boxes.clip(0):
        hidden[top:bottom, left:right] = True
    pixels = sample.pixels().copy()
    pixels[hidden & ~sample.instances.masks.any(axis=0)] = GREY
    return replace(sample, image=pixels)
