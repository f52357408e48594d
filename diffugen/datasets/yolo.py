"""YOLO-seg labels: a line per instance, `class x1 y1 x2 y2 ...`, in fractions of the width and height.

A line holds a single polygon, so an instance of several parts, or with holes, becomes one closed path, see
`yolo_path`. Here masks come back exactly; other readers draw a line one pixel wide between separate parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from diffugen.datasets.labelled import stacked
from diffugen.datasets.yolo_path import parts_of, path_of
from diffugen.instances import Instances

_DECIMALS = 7  # finer than a hundredth of a pixel in an image of a hundred thousand
_EARLIER = re.compile(r"[01]\.\d{7}")  # as `to_lines` writes
_TOLERANCE = 0.01  # of the image: how far outside a coordinate may lie, as in ultralytics


def to_lines(instances: Instances) -> list[str]:
    """The label file's lines. Empty masks are left out: the format cannot express them; scores are too."""
    lines = []
    for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
        if mask.any():
            points = path_of(mask) / (mask.shape[1], mask.shape[0])
            lines.append(f"{class_id} " + " ".join(f"{value:.{_DECIMALS}f}" for value in points.ravel()))
    return lines


def from_lines(lines: Sequence[str], size_hw: tuple[int, int]) -> Instances:
    """Read a label file's lines for an image of the given size; blank and repeated lines are skipped.

    A line of five values is a box (`class cx cy w h`) and becomes a rectangular mask.

    Raises:
        ValueError: if a line is neither, or a coordinate lies outside [0, 1] by more than a hundredth; names the line.
    """
    found: dict[str, tuple[int, np.ndarray, Callable[..., np.ndarray]]] = {}
    for number, line in enumerate(lines, start=1):
        values = line.split()
        if values and (key := " ".join(values)) not in found:
            try:
                found[key] = (_class_id(values[0]), *_shape_of(values[1:]))
            except ValueError as error:
                raise ValueError(f"line {number}: {error} in {line.strip()[:60]!r}") from None
    shapes = found.values()
    masks = stacked((draw(points, size_hw) for _, points, draw in shapes), size_hw, len(shapes), "it")
    return Instances.from_masks(masks, [class_id for class_id, *_ in shapes])


def _class_id(text: str) -> int:
    whole = text.removesuffix(".0")
    if not (whole.isascii() and whole.isdigit() and len(whole) < 10):
        raise ValueError(f"class {text[:20]!r} is not a number >= 0")
    return int(whole)


def _shape_of(texts: Sequence[str]) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """Points float64 [k, 2], fractions of the image, and what draws them."""
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        raise ValueError("a coordinate is not a number") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"{len(values)} coordinates make neither a box nor a polygon")
    if not (values.min() >= -_TOLERANCE and values.max() <= 1 + _TOLERANCE):  # also refuses nan
        raise ValueError("coordinates must be fractions of the image")
    if len(values) == 4:
        centre, half = values[:2], values[2:] / 2
        return np.array([centre - half, centre + half]).clip(0, 1), _box
    return values.reshape(-1, 2).clip(0, 1), _cut if all(map(_EARLIER.fullmatch, texts)) else _rounded


def _box(corners: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A rectangle; its corners are edges of pixels."""
    low, high = np.floor(corners * size_hw[::-1] + 0.5).astype(int)
    low = np.minimum(low, np.array(size_hw[::-1]) - 1)
    mask = np.zeros(size_hw, bool)
    mask[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)] = True
    return mask


def _cut(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Paths of ours, whose points lie in the pixels that they stand for."""
    return _filled(parts_of(points * size_hw[::-1]), size_hw)


def _rounded(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Contours of pixels, whose numbers lost some decimals; each part of a joined path by itself."""
    return _filled([part + 0.5 for part in parts_of(points * size_hw[::-1])], size_hw)


def _filled(paths: Sequence[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """The pixels in closed paths of pixels, edges too, by the even-odd rule; positions are cut to pixels."""
    limit = np.array(size_hw[::-1]) - 1
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.minimum(path.astype(np.int32), limit).astype(np.int32) for path in paths], 1)
    return mask.astype(bool)
