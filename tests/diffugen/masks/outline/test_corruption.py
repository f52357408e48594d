"""Prompts for training: wrong, but about the object."""

from __future__ import annotations

import cv2
import numpy as np

from diffugen.masks.outline.corruption import box_prompt, corrupted, views


def figure() -> np.ndarray:
    mask = cv2.ellipse(np.zeros((96, 120), np.uint8), (60, 40), (30, 18), 20, 0, 360, 1, -1)
    return cv2.rectangle(mask, (55, 50), (60, 85), 1, -1).astype(bool)


def ious(found: list[np.ndarray], mask: np.ndarray) -> np.ndarray:
    return np.array([(one & mask).sum() / (one | mask).sum() for one in found])


def test_masks_go_wrong_in_many_ways_but_stay_about_the_object() -> None:
    mask = figure()
    rng = np.random.default_rng(0)
    found = [corrupted(mask, rng) for _ in range(200)]
    assert all(one.shape == mask.shape and one.dtype == bool for one in found)
    quality = ious(found, mask)
    assert quality.min() >= 0.25
    assert 0.6 < quality.mean() < 0.9 and quality.std() > 0.08  # neither harmless nor hopeless
    assert np.mean([one.sum() > mask.sum() for one in found]) > 0.2
    assert np.mean([one.sum() < mask.sum() for one in found]) > 0.2


def test_the_same_seed_gives_the_same_prompts() -> None:
    first, second = (views(figure(), np.random.default_rng(5)) for _ in range(2))
    assert (first == second).all() and 2 <= len(first) <= 4


def test_tiny_objects_and_those_at_the_border_are_no_trouble() -> None:
    rng = np.random.default_rng(1)
    for window in (np.s_[0:1, 0:1], np.s_[0:5, 90:96], np.s_[0:96, 0:96]):
        mask = np.zeros((96, 96), bool)
        mask[window] = True
        for _ in range(40):
            assert corrupted(mask, rng).any() and (box_prompt(mask, rng) & mask).any()


def test_a_box_is_filled_and_about_right() -> None:
    mask = figure()
    found = [box_prompt(mask, np.random.default_rng(seed)) for seed in range(50)]
    for one in found:
        ys, xs = np.nonzero(one)
        assert one[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
    assert (np.array([(one & mask).sum() for one in found]) > 0.8 * mask.sum()).all()
