"""The loop's decisions: who labels, what is promoted, when to stop."""

from __future__ import annotations

import pytest

from bootstrap.config import FilterConfig, RoundsConfig
from bootstrap.decisions import (
    choose_labeler,
    choose_labeler_of_photos,
    decide_by_photos,
    decide_first,
    decide_promotion,
    stop_reason,
)
from bootstrap.row import AGREEMENT, BASE_AGREEMENT, FOUND, IMAGE_AGREEMENT


def agreements(*values: float) -> dict[str, float]:
    return {f"r00_{index}": value for index, value in enumerate(values)}


@pytest.mark.parametrize(
    ("candidate", "promoted", "told"),
    [
        ((0.6, 0.7, 0.8), True, "better than round 1's (IoU +0.100"),
        ((0.5, 0.6, 0.7), True, "no worse than round 1's"),
        ((0.2, 0.9, 0.6), True, "no worse than round 1's"),  # a little worse, by chance as far as three images tell
        ((0.4, 0.5, 0.6), False, "worse than round 1's (IoU -0.100"),  # a little worse on every image
        ((0.0, 0.3, 0.1), False, "worse than round 1's"),
    ],
)
def test_a_checkpoint_is_rolled_back_where_it_is_worse_beyond_chance(
    candidate: tuple[float, ...], promoted: bool, told: str
) -> None:
    decision = decide_promotion(agreements(*candidate), {1: agreements(0.5, 0.6, 0.7)})
    assert decision["promoted"] is promoted
    assert told in str(decision["why"]) and "on 3 validation images" in str(decision["why"])


def test_photos_alone_promote_nothing_that_is_worse_at_all() -> None:
    candidate, before = agreements(0.2, 0.9, 0.6), {1: agreements(0.5, 0.6, 0.7)}
    assert decide_promotion(candidate, before)["promoted"] is True
    assert decide_promotion(candidate, before, allow_chance=False)["promoted"] is False
    assert decide_promotion(before[1], before, allow_chance=False)["promoted"] is True


@pytest.mark.parametrize(
    ("best", "has_given", "labeler"), [(None, True, "given"), (None, False, "detector"), (0, True, "detector")]
)
def test_photos_alone_are_labelled_by_a_detector_once_there_is_one(
    best: int | None, has_given: bool, labeler: str
) -> None:
    assert choose_labeler_of_photos(best, has_given=has_given)[0] == labeler


def test_the_best_promoted_round_is_the_measure() -> None:
    """A round that lost a little was promoted since; what loses as much again is not."""
    before = {0: agreements(0.6, 0.7, 0.8), 1: agreements(0.5, 0.75, 0.8)}
    decision = decide_promotion(agreements(0.48, 0.62, 0.74), before)
    assert decision["promoted"] is False and "round 0's" in str(decision["why"])


@pytest.mark.parametrize(
    ("scores", "promoted"),
    [
        ({IMAGE_AGREEMENT: 0.0}, True),  # whatever it reaches: there is nothing to compare it with
        ({IMAGE_AGREEMENT: 0.75, BASE_AGREEMENT: 0.88}, False),
        ({IMAGE_AGREEMENT: 0.9, BASE_AGREEMENT: 0.88}, True),
    ],
)
def test_the_first_checkpoint_must_not_stray_from_the_base(scores: dict[str, float], promoted: bool) -> None:
    decision = decide_first(scores)
    assert decision["promoted"] is promoted
    assert promoted or "agree with the base detector's by 0.75 (IoU)" in str(decision["why"])


def test_photos_are_not_labelled_again_by_a_base_that_taught_nothing() -> None:
    row = {"promoted": False, "labels_from": "detector", "num_generated": 9, "num_photos": 9}
    assert "would label the same photos again" in stop_reason([row], 2)
    assert stop_reason([row | {"promoted": True}], 2) == stop_reason([row | {"num_generated": 10}], 2) == ""
    assert stop_reason([row | {"labels_from": "given"}], 2) == ""
    assert stop_reason([row], 2, has_corrections=True) == "", "a person taught something new"


def test_one_validation_image_has_no_spread() -> None:
    assert decide_promotion(agreements(0.49), {0: agreements(0.5)})["promoted"] is False


@pytest.mark.parametrize(("agreement", "labeler"), [(0.49, "attention"), (0.5, "detector"), (0.9, "detector")])
def test_the_detector_labels_once_it_agrees_with_attention(agreement: float, labeler: str) -> None:
    chosen, why = choose_labeler(
        {"round": 1, AGREEMENT: agreement}, RoundsConfig(switch_agreement=0.5), has_photos=False
    )
    assert chosen == labeler
    assert "round 1" in why and f"{agreement:.3f}" in why


def test_it_is_reported_when_the_detector_labels_photos_alone() -> None:
    standing = {"round": 0, AGREEMENT: 0.8}
    rules = RoundsConfig(filter=FilterConfig(by="attention"))
    chosen, why = choose_labeler(standing, rules, has_photos=True)
    assert chosen == "detector" and "generated images keep attention's labels" in why
    assert choose_labeler(standing, rules, has_photos=False)[0] == "attention"
    assert "generated" not in choose_labeler(standing, RoundsConfig(), has_photos=True)[1]


def test_attention_labels_while_there_is_no_detector() -> None:
    assert choose_labeler(None, RoundsConfig(switch_agreement=0.0), has_photos=True)[0] == "attention"


@pytest.mark.parametrize(
    ("promoted", "patience", "stops"),
    [
        ([True], 1, False),
        ([True, False], 1, True),
        ([True, False], 2, False),
        ([True, False, False], 2, True),
        ([True, False, True, False], 2, False),
        ([False, False], 2, False),  # nothing has been promoted that could be no better
    ],
)
def test_the_loop_stops_when_rounds_stop_paying(promoted: list[bool], patience: int, stops: bool) -> None:
    rows = [{"promoted": value} for value in promoted]
    assert bool(stop_reason(rows, patience)) is stops


def test_a_checkpoint_that_misses_the_photos_does_not_label() -> None:
    best = {"round": 0, AGREEMENT: 0.9, FOUND: 0.4}
    chosen, why = choose_labeler(best, RoundsConfig(switch_agreement=0.5), has_photos=True)
    assert chosen == "attention" and "on 40% of the held-out photos" in why
    assert choose_labeler({**best, FOUND: 0.5}, RoundsConfig(switch_agreement=0.5), has_photos=True)[0] == "detector"


PROMOTED: dict[str, bool | str] = {"promoted": True, "why": "no worse"}


@pytest.mark.parametrize(
    ("scores", "promoted"),
    [((0.9, 0.85, 0.8), True), ((0.85, 0.85, 0.8), True), ((0.7, 0.6, 0.7), False), ((0.0, 0.9, 0.9), True)],
)
def test_photos_take_a_promotion_back_only_beyond_chance(scores: tuple[float, ...], promoted: bool) -> None:
    before = {0: {"a": 0.9, "b": 0.85, "c": 0.8}, 1: {"a": 0.1, "b": 0.1, "c": 0.1}}
    decision = decide_by_photos(PROMOTED, dict(zip("abc", scores, strict=True)), before)
    assert decision["promoted"] is promoted
    assert promoted or "on 3 held-out photos it finds the object less surely than round 0" in str(decision["why"])


def test_without_photos_or_a_promoted_round_the_decision_stands() -> None:
    assert decide_by_photos(PROMOTED, {}, {0: {}}) == PROMOTED == decide_by_photos(PROMOTED, {"a": 0.0}, {})


def test_a_loop_that_finds_nothing_real_stops() -> None:
    rows = [{"promoted": True, FOUND: 0.0}, {"promoted": True, FOUND: 0.0}]
    assert "on none of the photos" in stop_reason(rows, 2)
    assert stop_reason([rows[0], {"promoted": True, FOUND: 0.2}], 2) == "" == stop_reason(rows[:1], 2)
