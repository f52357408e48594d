"""Outlines along the borders of pixels come back as the masks that they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from bootstrap.review.outlines import filled, outline_of, parts_of


def drawn(mask: np.ndarray, tolerance: float | None) -> np.ndarray:
    out = np.zeros_like(mask)
    for part in parts_of(mask):
        out |= filled(outline_of(part, tolerance), mask.shape)
    return out


def disc(radius: float, hole: float, size: int = 128) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return (np.hypot(x, y) < radius) & (np.hypot(x - hole / 2, y) >= hole)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8, 0.95])
def test_every_pixel_comes_back(density: float) -> None:
    """Specks, corners that touch, holes in holes, and the image's edge."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask = rng.random(rng.integers(1, 16, 2)) < density
        np.testing.assert_array_equal(drawn(mask, 0.0), mask)


@pytest.mark.parametrize(("radius", "hole"), [(30, 0), (50, 20), (60, 3), (20, 19)])
def test_few_corners_are_close(radius: float, hole: float) -> None:
    mask = disc(radius, hole)
    again = drawn(mask, None)
    assert (mask & again).sum() / (mask | again).sum() > 0.97
    assert sum(len(outline_of(part)) for part in parts_of(mask)) < mask.sum() ** 0.5 * 3
    large = disc(450, 100, 1024)
    assert len(outline_of(large)) < 250 and (drawn(large, None) ^ large).sum() < 0.01 * large.sum()


def test_corners_are_borders_of_pixels() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    assert sorted(map(tuple, outline_of(mask))) == [(20, 10), (20, 30), (50, 10), (50, 30)]


def test_a_pixel_belongs_to_a_polygon_where_its_centre_does() -> None:
    square = np.array([[1.4, 1.6], [3.6, 1.6], [3.6, 3.4], [1.4, 3.4]])
    assert np.argwhere(filled(square, (5, 5))).tolist() == [[2, 1], [2, 2], [2, 3]]
    assert not filled(square * 0.1, (5, 5)).any()


def test_what_lies_outside_is_cut_off() -> None:
    everything = np.array([[-500.0, -500], [500, -500], [500, 500], [-500, 500]])
    assert filled(everything, (7, 9)).all()
    assert not filled(everything + 1000, (7, 9)).any()


def test_turning_round_once_or_twice_is_inside_and_there_and_back_is_not() -> None:
    twice = np.array([[0.0, 0], [6, 0], [6, 6], [0, 6], [0, 0], [4, 0], [4, 4], [0, 4]])
    assert filled(twice, (6, 6)).all()
    back = np.array([[0.0, 0], [6, 0], [6, 6], [0, 6], [0, 0], [0, 4], [4, 4], [4, 0]])
    assert not filled(back, (6, 6))[:4, :4].any()
