"""YOLO-seg labels: a line per instance, `class x1 y1 x2 y2 ...`, in fractions of the width and height.

A line holds a single polygon, so an instance of several parts, or with holes, becomes one closed path: its
contours joined by bridges of zero width, walked there and back. Filled by the even-odd rule (cv2.fillPoly's,
so ultralytics', too) holes stay holes and a one-part mask comes back exactly; a bridge between separate
parts adds a line one pixel wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from diffugen.datasets.labelled import stacked
from diffugen.instances import Instances

_INSET = 0.01  # pixels between a path and the edge of its outermost pixels, so that rounding cannot cross it
_DECIMALS = 7  # finer than a hundredth of a pixel in an image of a hundred thousand
_EARLIER = re.compile(r"[01]\.\d{7}")  # as `to_lines` writes
_TOLERANCE = 0.01  # of the image: how far outside a coordinate may lie, as in ultralytics
_BRIDGE = 1.5  # pixels: contours of one part have steps of up to 1.42 where they are walked twice


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
    return _filled([points * size_hw[::-1]], size_hw)


def _rounded(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Contours of pixels, whose numbers lost some decimals; each part of a joined path by itself."""
    return _filled([part + 0.5 for part in parts_of(points * size_hw[::-1])], size_hw)


def _filled(paths: Sequence[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """The pixels in closed paths of pixels, edges too, by the even-odd rule; positions are cut to pixels."""
    limit = np.array(size_hw[::-1]) - 1
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.minimum(path.astype(np.int32), limit).astype(np.int32) for path in paths], 1)
    return mask.astype(bool)


def parts_of(points: np.ndarray) -> list[np.ndarray]:
    """The closed paths [k, 2] that a path [n, 2], in pixels, joins by bridges: edges walked there and back.

    ultralytics' converter of COCO polygons joins parts so, and so does `path_of`. An edge is a bridge if it is longer
    than a step from pixel to pixel and both its sides have an area; else it is a thin part of the object itself.
    """
    corners = [(x, y) for x, y in points.tolist()]
    edges = {(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True) if a != b}
    starts = [i for i, a in enumerate(corners) if (b := corners[(i + 1) % len(corners)]) != a and (b, a) not in edges]
    if not starts or len(starts) == len(corners):
        return [points]
    parts: list[np.ndarray] = []
    walk, turned = [corners[starts[0]]], [0.0]  # what no part has taken yet; twice the area that it turned round
    left_at: dict[tuple[Any, Any], int] = {}  # each edge walked -> where on the walk it began
    for here in corners[starts[0] + 1 :] + corners[: starts[0] + 1]:
        last = walk[-1]
        at = left_at.get((here, last), len(walk))
        back = at + 1 < len(walk) and walk[at] == here and walk[at + 1] == last
        if back and math.dist(here, last) > _BRIDGE and abs(turned[-1] - turned[at + 1]) > 0.5:
            parts.append(np.array(walk[at + 1 :]))
            del walk[at + 1 :], turned[at + 1 :]
        elif here != last:
            left_at[last, here] = len(walk) - 1
            walk.append(here)
            turned.append(turned[-1] + last[0] * here[1] - last[1] * here[0])
    return [np.array(walk), *parts]
