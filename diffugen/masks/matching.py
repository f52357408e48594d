"""Matching predicted instances to other instances by mask IoU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffugen.instances import Instances

_REPEAT_IOU = 0.8


def mask_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of bool masks [n, H, W] with [m, H, W]: float32 [n, m], 0 for empty ones."""
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks of {a.shape[1:]} and {b.shape[1:]} pixels cannot be compared; bring them to one size")
    flat_a, flat_b = (masks.reshape(len(masks), int(np.prod(masks.shape[1:]))).astype(np.float32) for masks in (a, b))
    intersection = flat_a @ flat_b.T
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None] - intersection
    return intersection / np.maximum(union, 1)


@dataclass(frozen=True)
class MatchResult:
    """Which predicted instance is which true one.

    Attributes:
        pairs: int64 [k, 2], indices (predicted, true), every instance at most once, by falling IoU.
        ious: float32 [k], the pairs' mask IoU.
    """

    pairs: np.ndarray
    ious: np.ndarray


def match_instances(
    pred: Instances, truth: Instances, iou_threshold: float = 0.5, same_class: bool = True
) -> MatchResult:
    """Pair predicted with true instances, the highest mask IoU first.

    Args:
        pred, truth: of one image.
        iou_threshold: pairs below this are none; pairs without any overlap never are.
        same_class: pair only instances of one class.
    """
    ious = mask_iou(pred.masks, truth.masks)
    allowed = (ious >= iou_threshold) & (ious > 0)
    if same_class:
        allowed &= pred.class_ids[:, None] == truth.class_ids[None]
    candidates = np.argwhere(allowed)
    order = np.argsort(-ious[allowed], kind="stable")
    pairs: list[tuple[int, int]] = []
    used_pred, used_truth = set(), set()
    for i, j in candidates[order].tolist():
        if i not in used_pred and j not in used_truth:
            pairs.append((i, j))
            used_pred.add(i)
            used_truth.add(j)
    index = np.array(pairs, np.int64).reshape(-1, 2)
    return MatchResult(index, ious[index[:, 0], index[:, 1]])


def without_repeats(instances: Instances) -> Instances:
    """Drop what stands among instances of one class twice (mask IoU of at least 0.8); the first stays.

    Two queries may see one object, and so may two classes of a model that became one.
    """
    same = mask_iou(instances.masks, instances.masks) >= _REPEAT_IOU
    same &= instances.class_ids[:, None] == instances.class_ids[None]
    kept: list[int] = []
    for index in range(len(instances)):
        if not same[index, kept].any():
            kept.append(index)
    return instances.subset(np.array(kept, np.int64))
