"""Bars and lines say which part of the whole they belong to."""

from __future__ import annotations

import pytest

from diffugen.progress import part, progress_bar, say, subpart


def test_bars_and_lines_name_their_part(capsys: pytest.CaptureFixture[str]) -> None:
    with part("round 2/3"):
        say("loading the detector")
        assert list(progress_bar([1, 2], desc="labelling", unit="image")) == [1, 2]
    say("done")
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line]
    assert lines[0] == "round 2/3: loading the detector" and lines[-1] == "done"
    assert all(line.startswith("round 2/3: labelling: ") for line in lines[1:-1]) and "2/2" in lines[-2]


def test_a_part_of_a_part_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    with part("round 2/3"):
        with subpart("judging photos 1/3"):
            say("fine-tuning")
        say("comparing")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["round 2/3: judging photos 1/3: fine-tuning", "round 2/3: comparing"]


def test_a_log_is_not_filled_with_states_of_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress_bar(range(1000), desc="labelling", unit="image"):
        pass
    assert capsys.readouterr().err.count("labelling") == 2  # the first and the last
    assert progress_bar([], desc="labelling").mininterval == 30
