"""Flat shapes: the parts that toy objects are made of, as polygons.

Coordinates are in object units, x to the right and y UP, with the ground at y = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SUBPIXEL_BITS = 4  # cv2 draws polygons in fixed point: 1/16 pixel


@dataclass(frozen=True)
class Part:
    """One filled polygon: points float [n, 2] (x, y up) and the name of its tone (see palette.py)."""

    points: np.ndarray
    tone: str = "main"


def polygon(*xy: tuple[float, float], tone: str = "main") -> Part:
    return Part(np.asarray(xy, dtype=np.float64), tone)


def box(left: float, bottom: float, width: float, height: float, tone: str = "main") -> Part:
    return trapezoid(left, bottom, width, height, 1.0, tone)


def trapezoid(
    left: float, bottom: float, width: float, height: float, top: float, tone: str = "main", lean: float = 0.0
) -> Part:
    """A trapezoid whose upper side is `top` times its lower side, shifted by `lean` x width."""
    mid, half = left + width * (0.5 + lean), 0.5 * width * top
    return polygon(
        (left, bottom), (left + width, bottom), (mid + half, bottom + height), (mid - half, bottom + height), tone=tone
    )


def ellipse(
    x: float, y: float, rx: float, ry: float, tone: str = "main", start: float = 0.0, stop: float = 360.0
) -> Part:
    """An ellipse around (x, y), or the segment of it from `start` to `stop` degrees (0 is right, 90 is up)."""
    angle = np.deg2rad(np.linspace(start, stop, 28))
    return Part(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1), tone)


def rounded_box(left: float, bottom: float, width: float, height: float, radius: float, tone: str = "main") -> Part:
    radius = min(radius, width / 2, height / 2)
    corners = []
    for x, y, start in (
        (left + width - radius, bottom + height - radius, 0),
        (left + radius, bottom + height - radius, 90),
        (left + radius, bottom + radius, 180),
        (left + width - radius, bottom + radius, 270),
    ):
        angle = np.deg2rad(np.linspace(start, start + 90, 6))
        corners.append(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1))
    return Part(np.concatenate(corners), tone)


def bar(x0: float, y0: float, x1: float, y1: float, thickness: float, tone: str = "main") -> Part:
    """A straight bar between two points."""
    along = np.array([x1 - x0, y1 - y0])
    side = np.array([-along[1], along[0]]) * (thickness / 2 / max(float(np.hypot(*along)), 1e-9))
    start, end = np.array([x0, y0]), np.array([x1, y1])
    return Part(np.stack([start - side, end - side, end + side, start + side]), tone)


def smooth(*xy: tuple[float, float], tone: str = "main", rounds: int = 2) -> Part:
    """A closed polygon with its corners cut round (Chaikin's algorithm)."""
    points = np.asarray(xy, dtype=np.float64)
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return Part(points, tone)


def wheel(x: float, radius: float) -> list[Part]:
    return [ellipse(x, radius, radius, radius, "black"), ellipse(x, radius, radius * 0.45, radius * 0.45, "grey")]


def moved(parts: Sequence[Part], dx: float = 0.0, dy: float = 0.0, scale_x: float = 1.0, scale_y: float = 1.0):
    """The parts scaled about the origin, then shifted: list[Part]. A negative scale_x mirrors."""
    scale, shift = np.array([scale_x, scale_y]), np.array([dx, dy])
    return [Part(part.points * scale + shift, part.tone) for part in parts]


def bounds(parts: Sequence[Part]) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) in object units."""
    points = np.concatenate([part.points for part in parts])
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def centred(parts: Sequence[Part]) -> list[Part]:
    """The parts with their bounding box standing on y = 0, centred on x = 0 and 1 unit in sqrt(width*height)."""
    left, bottom, right, top = bounds(parts)
    scale = 1.0 / np.sqrt((right - left) * (top - bottom))
    return moved(parts, -scale * (left + right) / 2, -scale * bottom, scale, scale)


def top_at(points: np.ndarray, x: float) -> float:
    """The highest y of a polygon's outline at x."""
    return _farthest(points[:, 0], points[:, 1], x)


def right_at(points: np.ndarray, y: float) -> float:
    """The rightmost x of a polygon's outline at y."""
    return _farthest(points[:, 1], points[:, 0], y)


def _farthest(along: np.ndarray, across: np.ndarray, at: float) -> float:
    at = float(np.clip(at, along.min() + 1e-6, along.max() - 1e-6))
    along2, across2 = np.roll(along, -1), np.roll(across, -1)
    crosses = (along <= at) != (along2 <= at)
    share = (at - along[crosses]) / (along2[crosses] - along[crosses])
    return float((across[crosses] + share * (across2[crosses] - across[crosses])).max())


def to_pixels(points: np.ndarray, scale: float, origin_xy: tuple[float, float]) -> np.ndarray:
    """Object units to cv2 fixed-point pixels: int32 [n, 1, 2]; origin_xy is the pixel of (0, 0)."""
    xy = points * (scale, -scale) + origin_xy
    return np.rint(xy * (1 << SUBPIXEL_BITS)).astype(np.int32)[:, None]


def paint(canvas: np.ndarray, points: np.ndarray, colour, outline=None, thickness: int = 1) -> None:
    """Fill a fixed-point polygon (from to_pixels) in place, with an outline in its own colour if given."""
    cv2.fillPoly(canvas, [points], colour, shift=SUBPIXEL_BITS)
    if outline is not None:
        cv2.polylines(canvas, [points], True, outline, thickness, shift=SUBPIXEL_BITS)


def silhouette_mask(parts: Sequence[Part], size_hw: tuple[int, int], scale: float, origin_xy) -> np.ndarray:
    """The union of the parts: uint8 [H, W] of 0 and 1."""
    mask = np.zeros(size_hw, np.uint8)
    for part in parts:
        cv2.fillPoly(mask, [to_pixels(part.points, scale, origin_xy)], 1, shift=SUBPIXEL_BITS)
    return mask
