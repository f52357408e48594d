"""Heat follows self-attention, phrases share the pixels, masks end at the image's edges."""

from __future__ import annotations

import numpy as np

from diffugen.refinement import compete, grabcut, propagate

SIZE_HW = (96, 128)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_heat_spreads_to_kin_and_keeps_its_units() -> None:
    """Two regions that look at themselves only: heat at one end of a region reaches all of it."""
    region = np.zeros((6, 8), bool)
    region[1:4, 2:7] = True
    kin = (region.ravel()[:, None] == region.ravel()[None]).astype(np.float32)
    affinity = (kin / kin.sum(axis=1, keepdims=True)).reshape(6, 8, 6, 8).astype(np.float16)
    heats = np.full((2, 6, 8), 0.02, np.float32)
    heats[0, 2, 2] = 0.32
    spread = propagate(heats, affinity)
    assert spread.shape == (2, 6, 8) and spread.dtype == np.float32
    np.testing.assert_allclose(spread[0][region], 0.04, rtol=1e-3)
    np.testing.assert_allclose(spread[0][~region], 0.02, rtol=1e-3)
    np.testing.assert_allclose(spread[1], 0.02, rtol=1e-3)


def test_sharpening_keeps_heat_from_crossing_a_faint_likeness() -> None:
    """Pixels of the other region are a third as like: squared, they get a ninth of the weight."""
    left = np.zeros((4, 6), bool)
    left[:, :3] = True
    like = np.where(left.ravel()[:, None] == left.ravel()[None], 3.0, 1.0)
    affinity = (like / like.sum(axis=1, keepdims=True)).reshape(4, 6, 4, 6).astype(np.float32)
    spread = propagate(np.where(left, 1.0, 0.0).astype(np.float32)[None], affinity)[0]
    np.testing.assert_allclose(spread[left], 0.9, rtol=1e-4)
    np.testing.assert_allclose(spread[~left], 0.1, rtol=1e-4)


def test_heat_comes_to_the_resolution_of_self_attention() -> None:
    affinity = np.full((3, 4, 3, 4), 1 / 12, np.float16)
    heats = np.random.default_rng(0).random((2, 6, 8), np.float32)
    spread = propagate(heats, affinity)
    assert spread.shape == (2, 3, 4)
    np.testing.assert_allclose(spread.mean(axis=(1, 2)), heats.mean(axis=(1, 2)), rtol=1e-3)


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


def test_grabcut_fills_holes() -> None:
    """A window in a house is part of the house."""
    image = np.full((80, 120, 3), 100, np.uint8)
    image[20:60, 30:90] = (200, 30, 40)
    image[25:31, 40:48] = 100
    truth = np.zeros((80, 120), bool)
    truth[20:60, 30:90] = True
    assert grabcut(image, truth)[25:31, 40:48].all()


def test_grabcut_leaves_alone_what_it_cannot_improve() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    for mask in (np.zeros((40, 60), bool), np.ones((40, 60), bool)):
        assert (grabcut(image, mask) == mask).all()
