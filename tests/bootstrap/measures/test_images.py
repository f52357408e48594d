"""Measures of image sets, on features whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from bootstrap.measures.images import kernel_distance, mean_distance, measure_sets, vendi_score


def test_the_vendi_score_counts_different_images() -> None:
    distinct = np.eye(5, 9)
    assert vendi_score(distinct) == pytest.approx(5)
    assert vendi_score(np.repeat(distinct, 3, axis=0)) == pytest.approx(5)
    assert vendi_score(np.ones((4, 7)) * np.arange(1, 5)[:, None]) == pytest.approx(1)  # scale does not count
    assert vendi_score(np.eye(4)[[0, 0, 0, 1]]) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_the_mean_distance_leaves_out_the_image_itself() -> None:
    assert mean_distance(np.eye(4)) == pytest.approx(1)
    assert mean_distance(np.array([[1.0, 0], [-1.0, 0]])) == pytest.approx(2)
    assert mean_distance(np.ones((3, 5))) == pytest.approx(0)


def test_the_kernel_distance_is_unbiased_and_grows_with_the_shift() -> None:
    rng = np.random.default_rng(0)

    def draw(shift: float) -> np.ndarray:
        return rng.normal(size=(20, 8)) + shift * np.eye(8)[0] + 1

    same = [kernel_distance(draw(0), draw(0)) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200)
    near, far = (np.mean([kernel_distance(draw(0), draw(shift)) for _ in range(20)]) for shift in (1, 3))
    assert 0 < near < far


def test_too_few_images_have_no_measures() -> None:
    one = measure_sets(np.ones((1, 3)), {"photos": np.ones((4, 3))})
    assert set(one) == {"vendi_score", "mean_distance", "kernel_distance_photos"}
    assert set(one.values()) == {None}
    assert measure_sets(np.eye(3), {"photos": np.ones((1, 3))})["kernel_distance_photos"] is None
