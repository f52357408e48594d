"""Heat becomes masks by the paper's steps."""

from __future__ import annotations

import numpy as np
import pytest

from diffugen.masks.thresholding import clean_mask, components, otsu_mask, upsample

SIZE_HW = (96, 128)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_upsample_keeps_place_and_units() -> None:
    values = np.full((12, 16), 0.02, np.float32)
    values[2, 10] = 0.5
    heat = upsample(values, SIZE_HW)
    assert heat.shape == SIZE_HW and heat.dtype == np.float32 and heat.min() >= 0
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(y - 2.5 * 8) <= 4 and abs(x - 10.5 * 8) <= 4
    assert heat[-1, 0] == pytest.approx(0.02, abs=1e-6)


def test_otsu_finds_a_rectangle_exactly() -> None:
    truth = rectangle(20, 30, 40, 50)
    heat = np.where(truth, 0.3, 0.05).astype(np.float32)
    assert (otsu_mask(heat) == truth).all()
    assert (otsu_mask(heat * 1e-3) == truth).all()


@pytest.mark.parametrize("level", [0.0, 0.05, 1.0])
def test_a_flat_map_has_no_mask(level: float) -> None:
    assert not otsu_mask(np.full(SIZE_HW, level, np.float32)).any()
    ripple = np.random.default_rng(0).uniform(0, level * 1e-3, SIZE_HW)
    assert not otsu_mask((level + ripple).astype(np.float32)).any()


def test_cleaning_scales_with_the_image() -> None:
    small = rectangle(20, 30, 40, 50)
    small[5, 5] = True
    large = np.kron(small, np.ones((4, 4), bool))
    for mask, scale in ((small, 1), (large, 4)):
        cleaned = clean_mask(mask, erode_fraction=4 / 128, dilate_fraction=3 / 128)
        side = np.sqrt(SIZE_HW[0] * SIZE_HW[1]) * scale
        shrink = round(4 / 128 * side) - round(3 / 128 * side)
        assert cleaned.sum() == (40 * scale - 2 * shrink) * (50 * scale - 2 * shrink)
        assert not cleaned[: 10 * scale, : 10 * scale].any(), "a speckle must go"


def test_components_are_separate_filled_and_large_enough() -> None:
    ring = rectangle(10, 10, 40, 40) & ~rectangle(20, 20, 10, 10)
    parts = components(ring | rectangle(60, 90, 20, 30) | rectangle(2, 120, 3, 3), min_area_fraction=0.005)
    assert [part.sum() for part in parts] == [40 * 40, 20 * 30]
    assert (parts[0] == rectangle(10, 10, 40, 40)).all()
    assert components(np.zeros(SIZE_HW, bool)).shape == (0, *SIZE_HW)
    assert len(components(rectangle(3, 4, 1, 1), min_area_fraction=0)) == 1
