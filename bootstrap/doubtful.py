"""Photos that nobody described: what only some labelers take for an object is neither object nor background.

A detector learns that everything without a label is background. So where labelers disagree the photo is made grey, as
ultralytics pads images; then it can be trained on for the sake of the objects on which they agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diffugen.instances import Instances
from diffugen.masks.consensus import SAME_OBJECT
from diffugen.masks.matching import mask_iou
from diffugen.sample import Sample

GREY = 114
"""What ultralytics pads images with."""
MOST_HIDDEN = 0.5
"""Share of an image that may be grey; what is left of others teaches little."""
MOSTLY_DOUBTFUL = "mostly_doubtful"
"""Why others are put aside for a person to look at."""


def is_partly_known(sample: Sample) -> bool:
    """Whether labels may be missing in an image: nobody said, and no person drew, what it shows."""
    return sample.is_photo and not sample.prompt.is_known and sample.labeler != "person"


def doubtful_boxes(sample: Sample) -> np.ndarray:
    """Boxes around what some labeler found in an image and what is not among its labels: int64 [n, 4], x1 y1 x2 y2."""
    labels, boxes = sample.instances, [np.zeros((0, 4))]
    for labeler in sample.encoded_labels:
        found = sample.labels(labeler)
        if len(found):
            boxes.append(found.xyxy[~_are_known(found, labels)])
    stacked = np.concatenate(boxes)
    return np.concatenate([np.floor(stacked[:, :2]), np.ceil(stacked[:, 2:])], axis=1).astype(np.int64)


def _are_known(found: Instances, labels: Instances) -> np.ndarray:
    """Which of a labeler's objects are among the labels, or parts of them: bool [n]."""
    same = mask_iou(found.masks, labels.masks).max(axis=1, initial=0) >= SAME_OBJECT
    inside = (found.masks & labels.masks.any(axis=0)).sum(axis=(1, 2))
    return same | (2 * inside >= found.masks.sum(axis=(1, 2)))


def _hidden_pixels(sample: Sample, boxes: np.ndarray) -> np.ndarray:
    """Which pixels of an image are doubtful: those of the boxes [n, 4] but for its labels' own: bool [H, W]."""
    hidden = np.zeros(sample.size_hw, bool)
    for left, top, right, bottom in boxes.clip(0):
        hidden[top:bottom, left:right] = True
    return hidden & ~sample.instances.masks.any(axis=0)


def is_mostly_hidden(sample: Sample) -> bool:
    """Whether most of an image would be grey."""
    return is_partly_known(sample) and bool(_hidden_pixels(sample, doubtful_boxes(sample)).mean() > MOST_HIDDEN)


def without_doubtful(sample: Sample) -> Sample:
    """A sample whose image is grey where labelers disagree, its labels' own pixels apart; itself where they do not.

    Its provenance, which datasets record, says where.
    """
    if not is_partly_known(sample):
        return sample
    boxes = doubtful_boxes(sample)
    hidden = _hidden_pixels(sample, boxes)
    if not hidden.any():
        return sample
    pixels = sample.pixels().copy()
    pixels[hidden] = GREY
    return replace(sample, image=pixels, provenance={**sample.provenance, "hidden_boxes": boxes.tolist()})
