"""Heat becomes masks by the paper's steps; scores tell objects from noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from diffugen.masks import clean_mask, compete, components, grabcut, otsu_mask, score_component, upsample

SIZE_HW = (96, 128)


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


def test_contested_pixels_go_to_the_phrase_that_they_matter_to() -> None:
    left, right = rectangle(20, 20, 40, 50), rectangle(20, 50, 40, 60)
    strong = np.where(left, 0.5, 0.1).astype(np.float32)
    weak = np.where(right, 0.04, 0.001).astype(np.float32)
    weak[:, 50:70] *= 2  # the overlap is where the weak phrase is at its strongest
    won_left, won_right = compete([strong, weak], [left, right])
    assert not (won_left & won_right).any()
    assert ((won_left | won_right) == (left | right)).all()
    assert (won_right == right).all()
    assert [mask.any() for mask in compete([strong, weak], [left, np.zeros(SIZE_HW, bool)])] == [True, False]
    assert compete([], []) == []


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


def test_grabcut_moves_a_coarse_edge_to_the_images_own() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (80, 120, 3), dtype=np.uint8)
    truth = np.zeros((80, 120), bool)
    truth[25:60, 40:90] = True
    image[truth] = (200, 30, 40)
    coarse = np.roll(truth, (3, -4), axis=(0, 1))
    refined = grabcut(image, coarse)

    def iou(mask: np.ndarray) -> float:
        return float((mask & truth).sum() / (mask | truth).sum())

    assert iou(coarse) < 0.8
    assert iou(refined) > 0.95
    assert (refined == grabcut(image, coarse)).all()  # its random start is fixed


def test_grabcut_leaves_alone_what_it_cannot_improve() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    for mask in (np.zeros((40, 60), bool), np.ones((40, 60), bool)):
        assert (grabcut(image, mask) == mask).all()
