"""Square windows around an object, brought to one working size, and back. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from diffugen.instances import box_of
from diffugen.masks.outline.base import OutlinePrompt

CONTEXT, MARGIN = 1.5, 0.1
"""A window's side is `CONTEXT` times the longer side of the prompt's box, plus `MARGIN` times sqrt(H * W)."""


@dataclass(frozen=True)
class Window:
    """A square part of an image, in its pixels; it may reach beyond the image.

    Attributes:
        left, top: of its corner.
        side: its length.
        image_hw: height and width of the image.
    """

    left: float
    top: float
    side: float
    image_hw: tuple[int, int]

    @classmethod
    def around(cls, mask: np.ndarray, image_hw: tuple[int, int]) -> Window:
        """The window of a mask (bool [h, w], at any resolution) with its context; the whole image for an empty mask."""
        height, width = image_hw
        if not mask.any():
            return cls((width - max(image_hw)) / 2, (height - max(image_hw)) / 2, max(image_hw), image_hw)
        scale_y, scale_x = height / mask.shape[0], width / mask.shape[1]
        left, top, right, bottom = np.array(box_of(mask)) * (scale_x, scale_y, scale_x, scale_y)
        side = CONTEXT * max(right - left, bottom - top) + MARGIN * np.sqrt(height * width)
        return cls(_placed(left, right, side, width), _placed(top, bottom, side, height), float(side), image_hw)

    def jittered(self, rng: np.random.Generator) -> Window:
        """A window of about the same place and size, for training."""
        side = self.side * float(rng.uniform(0.8, 1.25))
        move_x, move_y = rng.normal(0, 0.06 * self.side, 2)
        centre = (self.side - side) / 2
        return replace(self, left=self.left + centre + move_x, top=self.top + centre + move_y, side=side)

    def crop(self, array: np.ndarray, size: int, *, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        """What the window shows of a map of the image.

        Args:
            array: uint8 or float32 [h, w] or [h, w, c], over the whole image at any resolution.
            size: of the result, pixels.
            border: OpenCV's mode beyond the image: zeros, or cv2.BORDER_REPLICATE.

        Returns:
            [size, size] or [size, size, c].
        """
        scales = [size / self.side * whole / own for whole, own in zip(self.image_hw, array.shape[:2], strict=True)]
        if min(scales) < 1:  # averaged first, as the affine map only samples
            size_wh = max(1, round(array.shape[1] * scales[1])), max(1, round(array.shape[0] * scales[0]))
            array = cv2.resize(array, size_wh, interpolation=cv2.INTER_AREA)
        matrix = self._matrix(array.shape[:2], size)
        how = cv2.INTER_CUBIC if max(scales) > 2 else cv2.INTER_LINEAR
        return cv2.warpAffine(array, matrix, (size, size), flags=how, borderMode=border)

    def paste(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `crop`: float32 [size, size] to float32 [H, W], zero outside the window."""
        matrix = self._matrix(self.image_hw, values.shape[0])
        flags = (cv2.INTER_CUBIC if self.side > values.shape[0] else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(values, matrix, self.image_hw[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT)

    def _matrix(self, array_hw: tuple[int, ...], size: int) -> np.ndarray:
        """From pixels of a map of the image to the window's, pixel centres at half units."""
        per_window = size / self.side
        scale_x, scale_y = per_window * self.image_hw[1] / array_hw[1], per_window * self.image_hw[0] / array_hw[0]
        shift_x = scale_x / 2 - self.left * per_window - 0.5
        shift_y = scale_y / 2 - self.top * per_window - 0.5
        return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])


def network_input(image: np.ndarray, prompt: OutlinePrompt, window: Window, size: int) -> np.ndarray:
    """What the network sees of one object: float32 [8, size, size] in [0, 1].

    RGB, the mean of the prompt's masks, where other objects are, and the three maps of its heat; zeros for what is
    unknown.
    """
    planes = np.zeros((8, size, size), np.float32)
    planes[:3] = window.crop(image, size, border=cv2.BORDER_REPLICATE).transpose(2, 0, 1) / np.float32(255)
    planes[3] = window.crop(prompt.mask, size)
    if prompt.others is not None:
        planes[4] = window.crop(prompt.others.astype(np.float32), size)
    if prompt.heat is not None:
        planes[5:] = window.crop(prompt.heat.transpose(1, 2, 0), size).transpose(2, 0, 1)
    return planes.clip(0, 1)


def _placed(low: float, high: float, side: float, length: int) -> float:
    """Where a window of a side starts: centred on the box, but inside the image if it fits there."""
    start = (low + high - side) / 2
    return float(min(max(start, 0), length - side) if side <= length else (length - side) / 2)
