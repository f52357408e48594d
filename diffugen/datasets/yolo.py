"""YOLO-seg labels: a line per instance, `class x1 y1 x2 y2 ...`, in fractions of the width and height.

A line holds a single polygon, so an instance of several parts, or with holes, becomes one closed path: its
contours joined by bridges of zero width, walked there and back. Filled by the even-odd rule (cv2.fillPoly's,
so ultralytics', too) holes stay holes and a one-part mask comes back exactly; a bridge between separate
parts adds a line one pixel wide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import cv2
import numpy as np

from diffugen.instances import Instances

_INSET = 0.01  # pixels between a path and the edge of its outermost pixels, so that rounding cannot cross it
_DECIMALS = 7  # finer than a hundredth of a pixel in an image of a hundred thousand


def to_lines(instances: Instances) -> list[str]:
    """The label file's lines. Empty masks are left out: the format cannot express them; scores are too."""
    lines = []
    for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
        if mask.any():
            points = path_of(mask) / (mask.shape[1], mask.shape[0])
            lines.append(f"{class_id} " + " ".join(f"{value:.{_DECIMALS}f}" for value in points.ravel()))
    return lines


def from_lines(lines: Sequence[str], size_hw: tuple[int, int]) -> Instances:
    """Read a label file's lines for an image of the given size; blank lines are skipped.

    A line of five values is a box (`class cx cy w h`) and becomes a rectangular mask.

    Raises:
        ValueError: if a line is neither, or a coordinate lies outside [0, 1] by more than a hundredth.
    """
    masks, class_ids = [], []
    for line in lines:
        values = line.split()
        if values:
            class_ids.append(_class_id(values[0], line))
            masks.append(_mask_of(_points_of(values[1:], line), size_hw))
    return Instances.from_masks(np.array(masks, bool).reshape(-1, *size_hw), class_ids)


def data_yaml(splits: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """The lines of data.yaml, beside which lies images/<split>.

    There is no `path`: ultralytics then takes the file's own folder, wherever it is called from. It demands
    train and val, so another split stands in for one that is missing.
    """
    if not splits:
        raise ValueError("the dataset has no items; give at least one")
    available = {split: f"images/{split}" for split in splits}
    for split, stand_ins in {"train": ("val", "test"), "val": ("train", "test")}.items():
        available.setdefault(split, next(f"images/{s}" for s in (split, *stand_ins, *splits) if s in splits))
    order = sorted(available, key=lambda split: (("train", "val", "test", split).index(split), split))
    lines = [f"{split}: {json.dumps(available[split], ensure_ascii=False)}" for split in order]
    return [
        *lines,
        "names:",
        *(f"  {i}: {json.dumps(name, ensure_ascii=False)}" for i, name in enumerate(class_names)),
    ]


def path_of(mask: np.ndarray) -> np.ndarray:
    """One closed path around a non-empty mask [H, W]: float64 [k, 2] (x, y) pixels, k >= 4, edge to edge.

    Every point lies inside the pixel it stands for (so truncation gives the pixel's index), and the path's
    extent is the mask's tight box to within two hundredths of a pixel.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    path = _without_collinear(_joined([contour[:, 0] for contour in contours]))
    if len(path) < 3:
        path = np.concatenate([path] * 2)
    path = np.concatenate([path, path[::-1]]) if len(path) == 2 or _is_thin(path) else path
    return np.stack([_stretched(path[:, axis]) for axis in (0, 1)], axis=1)


def _is_thin(path: np.ndarray) -> bool:
    return bool((np.ptp(path, axis=0) == 0).any())


def _stretched(pixels: np.ndarray) -> np.ndarray:
    """Map pixel indices to coordinates so that the first and last pixel reach (almost) their outer edges."""
    low, span = pixels.min(), np.ptp(pixels)
    if span == 0:  # one pixel thick: out along one edge, back along the other
        outward = np.arange(len(pixels)) < len(pixels) / 2
        return low + np.where(outward, _INSET, 1 - _INSET)
    return pixels + _INSET + (pixels - low) / span * (1 - 2 * _INSET)


def _joined(contours: list[np.ndarray]) -> np.ndarray:
    """Join closed contours into one path, always the nearest next, so that no bridge crosses another hole."""
    path, rest = contours[0], list(contours[1:])
    gaps = [_nearest(path, contour) for contour in rest]
    while rest:
        chosen = min(range(len(rest)), key=lambda i: gaps[i][0])
        contour, (_, leave, start) = rest.pop(chosen), gaps.pop(chosen)
        at = int((path == leave).all(axis=1).argmax())
        loop = np.concatenate([contour[start:], contour[: start + 1]])
        path = np.concatenate([path[: at + 1], loop, path[at:]])
        gaps = [min(gap, _nearest(contour, other), key=lambda g: g[0]) for gap, other in zip(gaps, rest, strict=True)]
    return path


def _nearest(path: np.ndarray, contour: np.ndarray) -> tuple[int, np.ndarray, int]:
    """The nearest pair of points: their squared distance, the point on the path, the index on the contour."""
    squared = ((path[:, None].astype(np.int64) - contour[None]) ** 2).sum(axis=2)
    at, start = np.unravel_index(int(squared.argmin()), squared.shape)
    return int(squared[at, start]), path[at], int(start)


def _without_collinear(path: np.ndarray) -> np.ndarray:
    """Drop the points in the middle of a straight run."""
    step_in, step_out = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    return path[(step_in != step_out).any(axis=1)] if len(path) > 2 else path


def _class_id(text: str, line: str) -> int:
    if not text.isdigit():
        raise ValueError(f"class {text!r} is not a number >= 0 in the YOLO label line {line[:60]!r}")
    return int(text)


def _points_of(texts: list[str], line: str) -> np.ndarray:
    """Fractions float64 [k, 2]."""
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        raise ValueError(f"a coordinate is not a number in the YOLO label line {line[:60]!r}") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"{len(values)} coordinates make neither a box nor a polygon: {line[:60]!r}")
    if not (values.min() >= -0.01 and values.max() <= 1.01):  # also refuses nan
        raise ValueError(f"coordinates must be fractions of the image in the YOLO label line {line[:60]!r}")
    if len(values) == 4:
        (x, y), (w, h) = values[:2], values[2:] / 2
        values = np.array([x - w, y - h, x + w, y - h, x + w, y + h, x - w, y + h])
    return values.reshape(-1, 2).clip(0, 1)


def _mask_of(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    limit = np.array([size_hw[1] - 1, size_hw[0] - 1])
    pixels = np.minimum((points * size_hw[::-1]).astype(np.int32), limit).astype(np.int32)
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [pixels], 1)
    return mask.astype(bool)
