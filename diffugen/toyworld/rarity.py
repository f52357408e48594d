"""How rare the rare concepts are: their closest training kind by silhouette."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from diffugen.toyworld.render import silhouette
from diffugen.toyworld.scene import RARE_KINDS, TRAINING_KINDS

_SIZE, _AREA = 64, 900.0  # frame side and common area, in pixels
_SEEDS = range(4)


def aligned(mask: np.ndarray) -> np.ndarray:
    """A silhouette scaled to a common area with its centroid in the middle: bool [64, 64]."""
    ys, xs = np.nonzero(mask)
    scale = np.sqrt(_AREA / len(xs))
    shift = (_SIZE - 1) / 2 - scale * np.array([xs.mean(), ys.mean()])
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(mask.astype(np.float32), matrix, (_SIZE, _SIZE)) >= 0.5


def _instances(kind: str) -> np.ndarray:
    """A few aligned instances and their mirror images, flattened: float32 [n, 64 * 64]."""
    masks = [aligned(silhouette(kind, _SIZE * 2, seed)) for seed in _SEEDS]
    return np.stack([m for mask in masks for m in (mask, mask[:, ::-1])]).reshape(2 * len(masks), -1).astype(np.float32)


@cache
def _training_instances() -> np.ndarray:
    return np.stack([_instances(kind) for kind in TRAINING_KINDS])


def closest_training_kind(rare: str) -> tuple[str, float]:
    """The training kind with the highest silhouette IoU to any instance of `rare`, and that IoU."""
    mine, theirs = _instances(rare), _training_instances()
    intersection = theirs @ mine.T  # [kinds, n, n]
    union = theirs.sum(-1)[..., None] + mine.sum(-1) - intersection
    scores = (intersection / union).max(axis=(1, 2))
    best = int(scores.argmax())
    return TRAINING_KINDS[best], float(scores[best])


def rarity_table() -> dict[str, tuple[str, float]]:
    """Rare kind -> (closest training kind, IoU)."""
    return {kind: closest_training_kind(kind) for kind in RARE_KINDS}
