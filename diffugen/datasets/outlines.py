"""Objects drawn as polygons, boxes or circles in files of annotation tools, as masks; all in pixels of the image.

What has no area comes back as the reason, a few words that follow a count in a warning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

TOO_FEW_POINTS = "with fewer than three points"
NO_NUMBERS = "with coordinates that are no finite numbers"
NOTHING_INSIDE = "with nothing inside the image"
TOO_LONG = "with an outline that no image could hold"

_MOST_SIDES = 10  # how far outside the image a point may be, in sides of the image


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # not nan either


def is_point(value: Any) -> bool:
    """Whether it is a list of two such numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def polygons_of(value: Any) -> list[np.ndarray] | str:
    """Polygons float64 [k, 2] from any of the ways in which tools nest them; parts with fewer points are left out.

    Args:
        value: `[[x1, y1, ...], ...]` as COCO has it, one flat list, one list of pairs, or a list of lists of pairs.

    Returns:
        The polygons, none if there are no points at all; or why there is none.
    """
    if not isinstance(value, list):
        return NO_NUMBERS
    if not value:
        return []
    if not any(isinstance(part, list) for part in value) or all(_is_pair(part) for part in value):
        value = [value]  # a single polygon
    parts = []
    for part in value:
        if isinstance(part, list) and any(isinstance(entry, list) for entry in part):
            if not all(_is_pair(entry) for entry in part):
                return NO_NUMBERS
            part = [number for pair in part for number in pair]
        if not isinstance(part, list) or len(part) % 2 or not all(is_number(number) for number in part):
            return NO_NUMBERS
        parts.append(np.array(part, float).reshape(-1, 2))
    if not sum(len(part) for part in parts):
        return []
    return [part for part in parts if len(part) > 2] or TOO_FEW_POINTS


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(number, list) for number in value)


def polygon_mask(polygons: Sequence[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray | str:
    """The pixels in any of the polygons, as pycocotools draws them: bool [H, W]; or why there are none."""
    height, width = size_hw
    long = 4 * height * width + 8 * _MOST_SIDES * (height + width)  # a line around every single pixel
    for polygon in polygons:
        outside = np.abs(polygon - np.array([width, height]) / 2) > np.array([width, height]) * _MOST_SIDES
        if outside.any() or np.hypot(*np.diff(polygon, axis=0, append=polygon[:1]).T).sum() > long:
            return TOO_LONG  # drawing takes time and memory by the length
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], height, width))
    mask = coco_mask.decode(rle).astype(bool)
    return mask if mask.any() else NOTHING_INSIDE


def box_mask(box: Sequence[float], size_hw: tuple[int, int]) -> np.ndarray | str:
    """The pixels of a box (x, y, width, height): bool [H, W]; or why there are none."""
    x, y, width, height = box
    columns = np.array([x, x + width]).clip(0, size_hw[1]).round().astype(int)
    rows = np.array([y, y + height]).clip(0, size_hw[0]).round().astype(int)
    mask = np.zeros(size_hw, bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask if mask.any() else NOTHING_INSIDE


def box_of_entry(value: Any) -> tuple[float, float, float, float] | None:
    """A `bbox` entry (x, y, width, height) with an area; None if it is none."""
    if isinstance(value, list) and len(value) == 4 and all(is_number(number) for number in value):
        x, y, width, height = map(float, value)
        if width > 0 and height > 0:
            return x, y, width, height
    return None


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """A polygon float64 [64, 2] around a centre."""
    angles = np.arange(64) * (2 * math.pi / 64)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def rings_of(mask: np.ndarray) -> list[list[np.ndarray]]:
    """For each connected part of a bool mask [H, W] its outline and those of its holes, along the borders of pixels.

    Each is a closed ring float64 [k, 2] (x, y), k >= 4, whose edges are horizontal and vertical in turn. The mask is on
    the left of the way, so holes run the other way round. Pixels that touch by a corner belong together.
    """
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)  # so that a contour has two sides
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, list[np.ndarray]] = {}
    for number, contour in enumerate(contours):
        parent = int(hierarchy[0, number, 3])
        parts.setdefault(number if parent < 0 else parent, []).append(_corners(np.ceil(contour[:, 0] / 2)))
    return list(parts.values())


def _corners(ring: np.ndarray) -> np.ndarray:
    """A ring [k, 2] without points that come twice in a row or lie in the middle of an edge."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    step_in, step_out = np.sign(ring - np.roll(ring, 1, axis=0)), np.sign(np.roll(ring, -1, axis=0) - ring)
    return ring[(step_in != step_out).any(axis=1)]
