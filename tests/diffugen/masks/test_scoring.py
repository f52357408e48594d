"""Scores tell objects from noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from diffugen.masks.scoring import score_component
from diffugen.masks.thresholding import clean_mask, components, otsu_mask, upsample

SIZE_HW = (96, 128)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def noise_map(seed: int, *, smooth: float = 0.0, level: float = 0.03, spread: float = 0.01) -> np.ndarray:
    """Attention without an object: [12, 16] about `level`."""
    values = np.random.default_rng(seed).normal(size=(12, 16))
    if smooth:
        values = cv2.GaussianBlur(values, (0, 0), smooth)
        values /= values.std()
    return np.clip(level + spread * values, 0, None).astype(np.float32)


def blob_map(seed: int, *, peak: float = 0.25) -> np.ndarray:
    """The same with one soft object at a random place: [12, 16]."""
    y, x = np.random.default_rng(seed).uniform((3, 4), (9, 12))
    rows, columns = np.mgrid[:12, :16]
    bump = np.exp(-(((rows - y) / 2) ** 2 + ((columns - x) / 2.8) ** 2) / 2)
    return (noise_map(seed) + (peak - 0.03) * bump).astype(np.float32)


def best_score(values: np.ndarray) -> float:
    heat = upsample(values, SIZE_HW)
    return max((score_component(heat, part) for part in components(clean_mask(otsu_mask(heat)))), default=0.0)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 2.0])
def test_real_blobs_rank_above_noise(smooth: float) -> None:
    blobs = [best_score(blob_map(seed)) for seed in range(30)]
    noise = [best_score(noise_map(seed, smooth=smooth)) for seed in range(30)]
    assert min(blobs) > max(noise)
    assert np.mean(blobs) > np.mean(noise) + 0.2


def test_contrast_is_absolute() -> None:
    """Stretched to its own range, a nearly flat map would look like an object."""
    blob = blob_map(0)
    faint = (0.05 + (blob - blob.mean()) * 0.01).astype(np.float32)
    assert best_score(blob) > 0.5
    assert best_score(faint) < 0.2
    assert best_score((blob * 0.01).astype(np.float32)) < 0.3, "below an even share of the attention"


def test_implausible_sizes_score_low() -> None:
    def score(mask: np.ndarray) -> float:
        return score_component(np.where(mask, 0.3, 0.02).astype(np.float32), mask)

    assert score(rectangle(20, 30, 40, 50)) > 0.85
    assert score(rectangle(0, 0, 90, 120)) < 0.2
    assert score(rectangle(20, 30, 4, 4)) < 0.25
    assert score(np.ones(SIZE_HW, bool)) == score(np.zeros(SIZE_HW, bool)) == 0


def test_an_ignored_twin_does_not_count_as_noise() -> None:
    first, second = rectangle(20, 10, 30, 30), rectangle(20, 80, 30, 30)
    heat = np.where(first | second, 0.3, 0.02).astype(np.float32)
    assert score_component(heat, first, ignore=second) > score_component(heat, first) + 0.2
