"""Prompts for training, made from true masks: wrong in the ways in which labelers are. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from diffugen.instances import box_of

_TRIES = 5
_LEAST_IOU = 0.25  # below, a prompt says too little about which object is meant


def corrupted(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A labeler's idea of an object: one or two kinds of error, moderate ones being the most likely.

    Args:
        mask: bool [H, W], not empty.

    Returns:
        bool [H, W], not empty, with an IoU of at least 0.25 with the mask.
    """
    for _ in range(_TRIES):
        found = mask
        for number in rng.choice(len(_KINDS), size=1 + int(rng.random() < 0.5), replace=False):
            if found.any():
                found = _KINDS[number](found, rng)
        if (found & mask).sum() >= _LEAST_IOU * max(1, (found | mask).sum()):
            return found
    return mask


def box_prompt(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The filled box of a mask, each side off by some percent of its length: bool [H, W]."""
    left, top, right, bottom = box_of(mask)
    off = rng.normal(0, 0.04, 4) * (right - left, bottom - top, right - left, bottom - top)
    x0, y0, x1, y1 = np.rint(np.array([left, top, right, bottom]) + off).astype(int)
    found = np.zeros_like(mask)
    found[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    return found if (found & mask).any() else mask


def views(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What several labelers, two to four, take for one object: bool [n, H, W]."""
    return np.stack([corrupted(mask, rng) for _ in range(int(rng.integers(2, 5)))])


def _side(mask: np.ndarray) -> float:
    return float(np.sqrt(max(1, mask.sum())))


def _grown(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _morphed(mask, cv2.dilate, abs(rng.normal(0, 0.08)))


def _shrunk(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _morphed(mask, cv2.erode, abs(rng.normal(0, 0.06)))


def _morphed(mask: np.ndarray, change: Callable[..., np.ndarray], share: float) -> np.ndarray:
    radius = max(1, round(share * _side(mask)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return change(mask.astype(np.uint8), disc).astype(bool)


def _shifted(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved and scaled a little."""
    ys, xs = np.nonzero(mask)
    scale, (dx, dy) = np.exp(rng.normal(0, 0.07)), rng.normal(0, 0.05 * _side(mask), 2)
    matrix = np.array([[scale, 0, xs.mean() * (1 - scale) + dx], [0, scale, ys.mean() * (1 - scale) + dy]])
    return cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5


def _coarse(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a coarse grid of probabilities shows it: smooth, thin parts lost or thickened, the level a little off."""
    cell = max(2.0, _side(mask) * rng.uniform(0.04, 0.2))
    grid_wh = max(2, round(mask.shape[1] / cell)), max(2, round(mask.shape[0] / cell))
    grid = cv2.resize(mask.astype(np.float32), grid_wh, interpolation=cv2.INTER_AREA)
    grid = grid + np.float32(rng.normal(0, rng.uniform(0, 0.2), grid.shape))
    smooth = cv2.resize(grid, mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return _near(smooth > rng.uniform(0.35, 0.6), mask)


def _wavy(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An edge that strays in and out, as of heat."""
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 3) for m in (mask, ~mask))
    cells = max(3, round(max(mask.shape) / (_side(mask) * rng.uniform(0.2, 0.6))))
    noise = cv2.resize(
        rng.normal(0, 1, (cells, cells)).astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_CUBIC
    )
    return inside - outside > noise * _side(mask) * rng.uniform(0.03, 0.1)


def _without_part(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Something at its rim, or one end of it, is missing."""
    ys, xs = np.nonzero(mask)
    index = int(rng.integers(len(xs)))
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * xs + np.sin(angle) * ys
        kept = along > np.quantile(along, rng.uniform(0.05, 0.35))
        found = np.zeros_like(mask)
        found[ys[kept], xs[kept]] = True
        return found
    away = np.hypot(np.arange(mask.shape[1])[None] - xs[index], np.arange(mask.shape[0])[:, None] - ys[index])
    return mask & (away > _side(mask) * rng.uniform(0.1, 0.4))


def _with_more(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A blob of the background, or of a neighbour, taken for a part."""
    ys, xs = np.nonzero(mask)
    index = int(rng.integers(len(xs)))
    centre_x, centre_y = np.array([xs[index], ys[index]]) + rng.normal(0, 0.2 * _side(mask), 2)
    away_x = (np.arange(mask.shape[1])[None] - centre_x) / rng.uniform(0.5, 2)
    away = np.hypot(away_x, np.arange(mask.shape[0])[:, None] - centre_y)
    return mask | (away < _side(mask) * rng.uniform(0.1, 0.35))


def _filled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Its convex hull."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(contours))
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), [hull], 0, 1, cv2.FILLED).astype(bool)


def _near(found: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What noise made far from the mask does not count."""
    left, top, right, bottom = (int(side) for side in box_of(mask))
    reach = int(_side(mask) * 0.25)
    kept = np.zeros_like(found)
    window = np.s_[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach]
    kept[window] = found[window]
    return kept


_KINDS = (_grown, _shrunk, _shifted, _coarse, _coarse, _wavy, _wavy, _without_part, _with_more, _filled)
