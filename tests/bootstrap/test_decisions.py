"""The loop's decisions: who labels, what is promoted, when to stop."""

from __future__ import annotations

import pytest

from bootstrap.decisions import AGREEMENT, SCORE, choose_labeler, decide_promotion, stop_reason


@pytest.mark.parametrize(("candidate", "promoted"), [(0.50, True), (0.51, True), (0.49, False)])
def test_a_checkpoint_is_promoted_only_if_it_is_no_worse(candidate: float, promoted: bool) -> None:
    best = {"round": 1, SCORE: 0.50}
    decision = decide_promotion({SCORE: candidate}, best)
    assert decision["promoted"] is promoted
    assert "round 1" in decision["why"]
    assert decision[SCORE] == candidate


def test_the_first_checkpoint_is_promoted_whatever_it_reaches() -> None:
    assert decide_promotion({SCORE: 0.0}, None)["promoted"] is True


@pytest.mark.parametrize(("agreement", "labeler"), [(0.49, "attention"), (0.5, "detector"), (0.9, "detector")])
def test_the_detector_labels_once_it_agrees_with_attention(agreement: float, labeler: str) -> None:
    chosen, why = choose_labeler({"round": 1, AGREEMENT: agreement}, 0.5)
    assert chosen == labeler
    assert "round 1" in why and f"{agreement:.3f}" in why


def test_attention_labels_while_there_is_no_detector() -> None:
    assert choose_labeler(None, 0.0)[0] == "attention"


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
