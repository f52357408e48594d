"""One closed path around a mask, as a line of a YOLO label file needs it, and the parts that such a path joins.

The path follows the borders of pixels, all its edges horizontal or vertical, and lies in the first half of the pixels
that it stands for. So readers that cut decimals (ultralytics, which also adds points between) and those that round them
(supervision) fill the same pixels. Parts and holes are joined by bridges of zero width, walked there and back. Filled
by the even-odd rule (cv2.fillPoly's, so ultralytics', too) holes stay holes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffugen.datasets.outlines import rings_of

_NEAR, _FAR = 0.01, 0.49  # from a pixel's first edge: where left or top, and right or bottom edges of a mask are drawn
_BRIDGE = 1.5  # pixels: contours of one part have steps of up to 1.42 where they are walked twice
_SMALLEST = 0.4  # twice the area of a part in square pixels: our path around a single one has 0.46
_PAIRS = 2_000_000  # distances held in memory at once


def path_of(mask: np.ndarray) -> np.ndarray:
    """One closed path around a non-empty mask [H, W]: float64 [k, 2] (x, y) pixels, k >= 4.

    It begins at the edge of the mask's tight box and ends half a pixel before its far edge.
    """
    return _joined([_with_holes([_inside(ring, mask) for ring in part]) for part in rings_of(mask)])


def _inside(ring: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Move corners from the borders of pixels into those of the mask, which is on the left of the way.

    Where two pixels touch by a corner only, the corner becomes two, one in each.
    """
    step_in, step_out = np.sign(ring - np.roll(ring, 1, axis=0)), np.sign(np.roll(ring, -1, axis=0) - ring)
    turn = step_in + step_out  # one step is horizontal, the other vertical
    here = ring + np.where(turn[:, ::-1] * [-1, 1] > 0, _FAR - 1, _NEAR)
    x, y = np.floor(here).astype(int).T
    touching = ~mask[y, x]
    before = np.where(step_in == 0, here, ring + np.where(step_in > 0, _FAR - 1, _NEAR))
    after = np.where(step_out == 0, here, ring + np.where(step_out > 0, _NEAR, _FAR - 1))
    pairs = np.stack([np.where(touching[:, None], before, here), after], axis=1)
    return pairs[np.stack([np.ones_like(touching), touching], axis=1)]


def _with_holes(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One path around a part and its holes, by bridges that run to the left through the part."""
    path, *holes = rings
    for hole in sorted(holes, key=lambda hole: float(hole[:, 0].min())):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        next_x, next_y = np.roll(path, -1, axis=0).T
        met = (path[:, 0] == next_x) & (np.minimum(path[:, 1], next_y) <= y) & (y <= np.maximum(path[:, 1], next_y))
        at = int(np.where(met & (next_x < x), next_x, -1).argmax())
        landing = [[path[at, 0], y]]
        path = np.concatenate([path[: at + 1], landing, hole[start:], hole[: start + 1], landing, path[at + 1 :]])
    return path


def _joined(paths: list[np.ndarray]) -> np.ndarray:
    """Join the paths of parts into one, always the nearest next."""
    path, rest = paths[0], paths[1:]
    gaps = [_nearest(path, other) for other in rest]
    while rest:
        chosen = min(range(len(rest)), key=lambda i: gaps[i][0])
        part, (_, leave, start) = rest.pop(chosen), gaps.pop(chosen)
        at = int((path == leave).all(axis=1).argmax())
        path = np.concatenate([path[: at + 1], part[start:], part[: start + 1], path[at:]])
        gaps = [min(gap, _nearest(part, other), key=lambda g: g[0]) for gap, other in zip(gaps, rest, strict=True)]
    return path


def _nearest(path: np.ndarray, ring: np.ndarray) -> tuple[float, np.ndarray, int]:
    """The nearest pair of corners: their squared distance, the one of the path, the index of the ring's."""
    best = (math.inf, path[0], 0)
    rows = max(1, _PAIRS // len(ring))
    for first in range(0, len(path), rows):
        squared = ((path[first : first + rows, None] - ring[None]) ** 2).sum(axis=2)
        at, start = np.unravel_index(int(squared.argmin()), squared.shape)
        if squared[at, start] < best[0]:
            best = (float(squared[at, start]), path[first + at], int(start))
    return best


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
        if back and math.dist(here, last) > _BRIDGE and abs(turned[-1] - turned[at + 1]) > _SMALLEST:
            parts.append(np.array(walk[at + 1 :]))
            del walk[at + 1 :], turned[at + 1 :]
        elif here != last:
            left_at[last, here] = len(walk) - 1
            walk.append(here)
            turned.append(turned[-1] + last[0] * here[1] - last[1] * here[0])
    return [np.array(walk), *parts]
