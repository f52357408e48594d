"""From a heatmap to the masks of objects by DiffuGen's steps (Shenoda and Kim, 2023): 8 bits, Otsu's threshold,
erosion and dilation, contours. Pure functions on arrays. Heat is never stretched to its own range, so a map without
an object stays recognisable as one.
"""

from __future__ import annotations

import cv2
import numpy as np


def upsample(values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bring a heatmap [h, w] to the image's height and width: float32 [H, W], bicubic, never negative."""
    height, width = size_hw
    resized = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.maximum(resized, 0)


def otsu_mask(heat: np.ndarray) -> np.ndarray:
    """The hot part of a heatmap by Otsu's threshold (Otsu 1979) on 256 levels from zero to the map's maximum.

    Args:
        heat: float [H, W], not negative.

    Returns:
        bool [H, W]; all False if the map is flat, within 1/255 of its maximum, or zero.
    """
    peak = heat.max(initial=0)
    if peak <= 0:
        return np.zeros(heat.shape, bool)
    levels = np.rint(heat / peak * 255).astype(np.uint8)
    if levels.min() >= 254:
        return np.zeros(heat.shape, bool)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return levels > threshold


def clean_mask(mask: np.ndarray, erode_fraction: float = 10 / 512, dilate_fraction: float = 7 / 512) -> np.ndarray:
    """Remove speckles by erosion, then grow what is left.

    Args:
        mask: bool [H, W].
        erode_fraction: how many pixels go, over sqrt(H * W); DiffuGen's 10 passes of 3x3 at 512x512 by default.
        dilate_fraction: how many come back; DiffuGen's 7 passes.
    """
    side = np.sqrt(mask.size)
    kernel = np.ones((3, 3), np.uint8)
    eroded = cv2.erode(mask.astype(np.uint8), kernel, iterations=round(erode_fraction * side))
    return cv2.dilate(eroded, kernel, iterations=round(dilate_fraction * side)).astype(bool)


def components(mask: np.ndarray, min_area_fraction: float = 0.005) -> np.ndarray:
    """The separate parts of a mask, by their outer contours (CHAIN_APPROX_SIMPLE), holes filled.

    Args:
        mask: bool [H, W].
        min_area_fraction: parts that cover less of the image than this are left out.

    Returns:
        bool [n, H, W], the largest first.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [cv2.drawContours(np.zeros(mask.shape, np.uint8), [contour], 0, 1, cv2.FILLED) for contour in contours]
    kept = [part.astype(bool) for part in parts if part.sum() >= max(1, min_area_fraction * mask.size)]
    kept.sort(key=lambda part: -part.sum())
    return np.array(kept, bool).reshape(-1, *mask.shape)
