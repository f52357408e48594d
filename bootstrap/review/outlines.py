"""Masks as polygons along the borders of pixels, as an annotation tool draws and edits them, and polygons as masks.

A pixel belongs to a polygon where its centre does, by the non-zero winding rule, which browsers fill by. A hole is part
of the polygon around it: its outline runs the other way, and a bridge of no width leads there and back.
"""

from __future__ import annotations

import cv2
import numpy as np

from diffugen.datasets.outlines import rings_of
from diffugen.instances import box_of

_TOLERANCE, _TOLERANCE_PER_PIXEL = 0.7, 1 / 400  # how far corners are cut: 0.7 pixels, more of large objects


def parts_of(mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a bool mask [H, W], each a mask; pixels that touch by a corner are connected."""
    number, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [labels == label for label in range(1, number)]


def outline_of(part: np.ndarray, tolerance: float | None = None) -> np.ndarray:
    """One closed polygon around a connected bool mask [H, W], its holes cut out: float64 [k, 2] (x, y), k >= 4.

    Args:
        part: not empty.
        tolerance: how far corners may be cut, pixels; 0 keeps every pixel, and a thousand corners to edit.
    """
    if tolerance is None:
        x1, y1, x2, y2 = box_of(part)
        tolerance = max(_TOLERANCE, _TOLERANCE_PER_PIXEL * float(np.hypot(x2 - x1, y2 - y1)))
    rings = [_simplified(ring, tolerance) for ring in rings_of(part)[0]]
    rings.sort(key=lambda ring: -abs(_area(ring)))  # the outer one first
    path, *holes = [ring if (_area(ring) > 0) == (index == 0) else ring[::-1] for index, ring in enumerate(rings)]
    for hole in holes:
        path = _bridged(path, hole)
    return path


def filled(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The pixels of a closed polygon float64 [k, 2] (x, y): bool [H, W]. What lies outside the image is cut off."""
    height, width = size_hw
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    low, high = (np.ceil(side(y, next_y) - 0.5).clip(0, height).astype(np.int64) for side in (np.minimum, np.maximum))
    counts = high - low  # rows whose centres an edge crosses
    edges = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[edges]
    run = (next_x - x)[edges] / (next_y - y)[edges]
    columns = np.ceil(x[edges] + (rows + 0.5 - y[edges]) * run - 0.5).clip(0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (rows, columns), np.sign(next_y - y).astype(np.int64)[edges])
    return turns.cumsum(axis=1)[:, :width] != 0


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """A ring with fewer corners; as it is where too few would be left."""
    fewer = cv2.approxPolyDP(ring.astype(np.float32), tolerance, closed=True)[:, 0].astype(np.float64)
    return fewer if len(fewer) >= 4 and _area(fewer) * _area(ring) > 0 else ring


def _area(ring: np.ndarray) -> float:
    """Its sign is the sense of rotation."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _bridged(path: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A path that also goes round a hole, from its leftmost corner to the nearest one of the path."""
    start = int(hole[:, 0].argmin())
    leave = int(((path - hole[start]) ** 2).sum(axis=1).argmin())
    loop = np.concatenate([hole[start:], hole[: start + 1]])
    return np.concatenate([path[: leave + 1], loop, path[leave:]])
