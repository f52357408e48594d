"""How long a run still takes."""

from __future__ import annotations

import pytest

from bootstrap.time_left import describe_time_left, duration

FIRST = {"photos": 0.0, "generate": 100.0, "label": 10.0, "finetune": 60.0, "compare": 10.0, "evaluate": 0.0}


@pytest.mark.parametrize(
    ("seconds", "index", "stage", "left"),
    [
        ({}, 0, "generate", ""),
        ({0: {"generate": 100.0}}, 0, "label", ""),  # how long fine-tuning takes is not known
        ({0: FIRST}, 1, "generate", " (run: 9 min left)"),  # 2 * 120, fine-tuning 120 and 180
        ({0: FIRST, 1: {"generate": 40.0}}, 1, "label", " (run: 6 min left)"),  # 10 + 120 + 10; 40 + 10 + 180 + 10
        ({0: FIRST, 1: FIRST}, 2, "compare", " (run: 10 s left)"),
        ({0: FIRST, 1: {"generate": 5.0}}, 1, "generate", " (run: 9 min left)"),  # cut off
    ],
)
def test_what_is_left_follows_from_what_was_measured(seconds: dict, index: int, stage: str, left: str) -> None:
    assert describe_time_left(seconds, index, stage, 3) == left


def test_fine_tuning_grows_only_where_all_images_are_trained_on() -> None:
    first = {0: {**FIRST, "finetune": 600.0}}
    assert describe_time_left(first, 1, "finetune", 2) == " (run: 20 min left)"


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_rough(seconds: float, text: str) -> None:
    assert duration(seconds) == text
