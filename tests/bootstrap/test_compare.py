"""Two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bootstrap.compare import comparison
from bootstrap.run_folder import RunFolder
from diffugen.errors import UserError
from diffugen.files import read_jsonl, write_json, write_jsonl


def make_run(path: Path, found: float, **config: Any) -> RunFolder:
    run = RunFolder(path)
    row = {
        "round": 0, "promoted": True, "num_kept": 3, "num_generated": 4, "seconds": {"generate": 90.0},
        "labeler": "attention", "num_rejected": 1, "num_review": 0, "rejected": {"no_object": 1}, "why": "the first",
        "photos/num": 6, "photos/found": found, "photos/score": found, "photos/threshold": 0.3,
    }  # fmt: skip
    write_jsonl(run.metrics, [row])
    write_json(run.config, {"config": {"name": path.name, "seed": 0, "concept": [{"steps": 3}], **config}})
    return run


def test_verdicts_figures_and_differing_settings(tmp_path: Path) -> None:
    text = comparison(make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 0.0, seed=5, rounds={"num_rounds": 2}))
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["verdict"][-2:] == ["good", "failed"]
    assert lines["share of photos on which the object is found [held-out photos]"][-2:] == ["1", "0"]
    assert lines["seed"][-2:] == ["0", "5"] and lines["rounds.num_rounds"][-2:] == ["null", "2"]
    assert "concept" not in lines and "name" not in lines
    assert "found on 0 of 6 photos" in text


def test_a_run_that_promoted_nothing_has_no_figures(tmp_path: Path) -> None:
    refused = make_run(tmp_path / "a", 0.5)
    (row,) = read_jsonl(refused.metrics)
    write_jsonl(refused.metrics, [row | {"promoted": False, "why": "it strayed"}])
    lines = {
        line.split("  ")[0]: line.split() for line in comparison(refused, make_run(tmp_path / "b", 1.0)).splitlines()
    }
    assert lines["promoted round"][-2:] == ["none", "0"]
    assert lines["share of photos on which the object is found [held-out photos]"][-2:] == ["-", "1"]


def test_settings_in_lists_are_compared_one_by_one(tmp_path: Path) -> None:
    """A list of concepts begins with the same long path."""
    text = comparison(make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 1.0, concept=[{"steps": 9}]))
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["concept.0.steps"][-2:] == ["3", "9"] and "concept" not in lines


def test_equal_settings_are_said_to_be_equal(tmp_path: Path) -> None:
    text = comparison(make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 1.0))
    assert text.endswith("the settings are the same")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run with a complete round"):
        comparison(make_run(tmp_path / "a", 1.0), RunFolder(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"promoted": "yes"},
        {"photos/found": "all"},
        {"seconds": {"generate": "long"}},
        {"verdict": {"level": "good", "reasons": [], "advice": []}},
        {"num_kept": None},
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    run = make_run(tmp_path / "a", 1.0)
    write_jsonl(run.metrics, [read_jsonl(run.metrics)[0] | change])
    with pytest.raises(
        UserError, match=rf"metrics.jsonl is damaged \('{next(iter(change))}' is missing or no such value"
    ):
        comparison(run, run)


def test_nothing_outside_a_run_is_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 1.0)
    run.config.rename(tmp_path / "config.json")
    run.config.symlink_to(tmp_path / "config.json")
    with pytest.raises(UserError, match="symbolic link that leads out of the run folder"):
        comparison(run, run)


@pytest.mark.parametrize("content", ["[]", "{}", '{"config": []}'])
def test_a_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    run = make_run(tmp_path / "a", 1.0)
    run.config.write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        comparison(run, run)
