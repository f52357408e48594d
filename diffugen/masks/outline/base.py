"""The protocol of outliners: what they are given and what they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np


@dataclass(frozen=True)
class OutlinePrompt:
    """One object of an image, as far as it is known before it is outlined.

    All maps cover the whole image, at any resolution.

    Attributes:
        views: [n, h, w], bool or float32 in [0, 1]: masks of the object. One coarse mask, a filled box, or the
            masks of several labelers, the most trusted first.
        others: bool or float32 [h, w], where other objects are; None where that is unknown.
        heat: float32 [3, h, w] in [0, 1] or None: what attention says, see `heat_channels`.
    """

    views: np.ndarray
    others: np.ndarray | None = None
    heat: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray:
        """float32 [h, w], the mean of the views."""
        return self.views.astype(np.float32).mean(axis=0)

    @property
    def majority(self) -> np.ndarray:
        """bool [h, w], what most views hold; the first one decides ties."""
        share = self.mask
        return (share > 0.5) | ((share == 0.5) & (self.views[0] > 0.5))


@dataclass(frozen=True)
class Outline:
    """The mask of one object.

    Attributes:
        probability: float32 [H, W] at the image's size, that a pixel is the object's; the mask is where it exceeds 0.5.
        confidence: the IoU that the outliner expects of the mask with the object; None if it has no estimate.
    """

    probability: np.ndarray
    confidence: float | None = None

    @property
    def mask(self) -> np.ndarray:
        """bool [H, W]."""
        return self.probability > 0.5


class Outliner(Protocol):
    """Anything that turns prompts into masks."""

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt of an image (uint8 RGB [H, W, 3]), in their order; they may overlap."""
        ...


def others_of(masks: np.ndarray) -> np.ndarray:
    """Where the other objects of an image are, for each of its masks: bool [n, H, W], like the masks."""
    return np.greater(masks.sum(axis=0) - masks, 0)


def heat_channels(heats: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """The attention of each phrase of an image as outliners see it, without units.

    Args:
        heats: float32 [n, h, w], attention per phrase.
        spreads: float32 [n, h', w'], the same spread along self-attention.

    Returns:
        float32 [n, 3, h, w] in [0, 1]: the root of the heat over its maximum, its share among the phrases, and the root
        of the spread heat over its maximum.
    """
    tiny = 1e-12
    if spreads.shape != heats.shape:
        spreads = np.stack([cv2.resize(one, heats.shape[:0:-1], interpolation=cv2.INTER_LINEAR) for one in spreads])
    share = heats / np.maximum(heats.sum(axis=0), tiny)
    roots = [np.sqrt(maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), tiny)) for maps in (heats, spreads)]
    return np.stack([roots[0], share, roots[1]], axis=1).astype(np.float32)
