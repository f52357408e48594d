"""From a coarse mask to the prompts that Segment Anything understands. Pure functions on arrays."""

from __future__ import annotations

import cv2
import numpy as np

from diffugen.instances import box_of

CONTEXT = 0.1
"""Share of its sides by which the box is enlarged."""

NUM_INSIDE, NUM_OUTSIDE = 3, 2
"""Points per object."""

SOFTNESS = 0.1
"""Standard deviation of the blur of a mask over the root of its area."""

_LOGIT = 6.0

Points = list[list[float]]


def points_of(mask: np.ndarray, others: np.ndarray | None = None) -> tuple[Points, Points]:
    """Points (x, y) that are surely the object's, and points nearby that are surely not.

    Both lie deepest by the distance transform, each away from those before it. The ones outside lie within the box with
    its context, in other objects where there are any there.

    Args:
        mask: bool [H, W], not empty.
        others: bool [H, W], where other objects are.
    """
    left, top, right, bottom = (int(side) for side in box_with_context(mask))
    near = np.zeros(mask.shape, bool)
    near[top : bottom + 1, left : right + 1] = True
    outside = near & ~mask
    if others is not None and (outside & others).any():
        first = _deepest(outside & others, 1)
        return _deepest(mask, NUM_INSIDE), first + _deepest(outside, NUM_OUTSIDE - 1)
    return _deepest(mask, NUM_INSIDE), _deepest(outside if outside.any() else ~mask, NUM_OUTSIDE)


def box_with_context(mask: np.ndarray) -> list[float]:
    """xyxy of a mask, somewhat enlarged, within the image."""
    left, top, right, bottom = box_of(mask)
    margin_x, margin_y = CONTEXT * (right - left), CONTEXT * (bottom - top)
    height, width = mask.shape
    return [
        max(0.0, left - margin_x),
        max(0.0, top - margin_y),
        min(width - 1.0, right + margin_x),
        min(height - 1.0, bottom + margin_y),
    ]


def softened_logits(mask: np.ndarray) -> np.ndarray:
    """A mask as logits that are unsure at its edge: float32 [H, W]."""
    sigma = max(0.5, SOFTNESS * float(np.sqrt(mask.sum())))
    return (2 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma) - 1) * _LOGIT


def _deepest(mask: np.ndarray, count: int) -> Points:
    """`count` points of a mask; the last one again where there are no more."""
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    points: Points = []
    for _ in range(count):
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] <= 0 and points:
            points.append(points[-1])
            continue
        points.append([float(x), float(y)])
        cv2.circle(depth, (int(x), int(y)), max(1, round(float(depth[y, x]))), 0.0, -1)
    return points
