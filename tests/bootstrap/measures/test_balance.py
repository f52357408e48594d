"""What the filter discriminates against: rates, their intervals, and whether chance explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bootstrap.measures.balance import balance, difference_p_value, discriminated, wilson_interval
from diffugen.sample import Sample

Vary = Callable[[list[Sample], list[str], list[bool]], list[Sample]]


def at_times(samples: list[Sample], times: list[str]) -> list[Sample]:
    """The samples with an attribute `time` in their prompts, all from one template."""
    return [
        replace(
            sample,
            prompt=replace(sample.prompt, attributes={"time": time}, template="a {any} {time}"),
        )
        for sample, time in zip(samples, times, strict=True)
    ]


@pytest.fixture
def dark_rejected(tmp_path: Path, make_samples: Callable) -> list[Sample]:
    """Thirty images, ten of them at night, of which the filter rejects nine; it rejects one of the others."""
    rejected = dict.fromkeys([*range(9), 15], "too_few:piano")
    return at_times(make_samples(tmp_path, [[0]] * 30, rejected), ["at night"] * 10 + ["by day"] * 10 + [""] * 10)


def test_a_filter_against_the_night_is_seen(dark_rejected: list[Sample]) -> None:
    tables = balance(dark_rejected)
    assert set(tables) == {"time"}  # one template, one phrase: nothing to compare
    night = tables["time"]["values"]["at night"]
    assert (night["generated"], night["keep"], night["reject"], night["review"]) == (10, 1, 9, 0)
    assert night["keep_rate"] == 0.1 and night["keep_rate_low"] < 0.1 < night["keep_rate_high"] < 0.5
    assert night["agreement"] == 0.75
    assert set(tables["time"]["values"]) == {"at night", "by day", "(none)"}
    assert tables["time"]["p_value"] < 0.01
    [(slot, value, keep, generated, overall)] = discriminated(tables)
    assert (slot, value, keep, generated) == ("time", "at night", 1, 10) and overall == pytest.approx(2 / 3)


def test_an_even_filter_is_not_accused(tmp_path: Path, make_samples: Callable) -> None:
    samples = make_samples(tmp_path, [[0]] * 20, dict.fromkeys((0, 3, 11, 16), "low_score:piano"))
    tables = balance(at_times(samples, ["at night"] * 10 + ["by day"] * 10))
    assert tables["time"]["p_value"] == 1.0
    assert discriminated(tables) == []


def test_an_image_counts_for_each_of_its_phrases_once(tmp_path: Path, make_samples: Callable) -> None:
    tables = balance(at_times(make_samples(tmp_path, [[0, 1], [0], [1, 1], []], {1: "low_iou:piano"}), ["by day"] * 4))
    rows = tables["phrase"]["values"]
    assert {name: (row["generated"], row["keep"]) for name, row in rows.items()} == {"piano": (2, 1), "car": (2, 2)}


def test_images_without_a_slot_are_of_the_chance(dark_rejected: list[Sample]) -> None:
    """The night's images are kept less than those of templates that know no time."""
    without = [replace(sample, prompt=replace(sample.prompt, attributes={})) for sample in dark_rejected[10:]]
    times = at_times(dark_rejected[:10], ["at night"] * 5 + ["at midnight"] * 5)
    table = balance([*times, *without])["time"]
    assert {name: row["generated"] for name, row in table["values"].items()} == {"at night": 5, "at midnight": 5}
    assert table["p_value"] < 0.01


def test_the_permutation_test_is_uniform_under_chance() -> None:
    rng, sizes = np.random.default_rng(7), np.array([12, 8, 20])
    kept = rng.multivariate_hypergeometric(sizes, 24, 100)
    p_values = [difference_p_value(np.eye(3, dtype=bool), sizes, row) for row in kept]
    assert 0 <= np.mean(np.array(p_values) < 0.05) < 0.13
    assert 0.35 < np.mean(p_values) < 0.75


def test_groups_may_share_images() -> None:
    """Against permutations of the images one by one."""
    members = np.array([[True, True, False], [False, True, True]])
    sizes, kept = np.array([20, 5, 20]), np.array([17, 3, 10])
    rng, cell_of = np.random.default_rng(1), np.repeat(np.arange(3), sizes)

    def statistic(counts: np.ndarray) -> float:
        num = members @ sizes
        return float(((members @ counts - num * 30 / 45) ** 2 / num).sum())

    drawn = [np.bincount(rng.permutation(cell_of)[:30], minlength=3) for _ in range(4000)]
    share = np.mean([statistic(counts) >= statistic(kept) - 1e-9 for counts in drawn])
    assert difference_p_value(members, sizes, kept) == pytest.approx(share, abs=0.03)
    assert 0.02 < share < 0.2


@pytest.mark.parametrize(
    ("num_hits", "num", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(num_hits: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(num_hits, num) == pytest.approx((low, high), abs=1e-4)
