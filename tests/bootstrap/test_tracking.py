"""Tracking by W&B: off unless asked for, offline without an account, and never the end of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrap.config import WandbConfig
from bootstrap.samples import write_samples
from bootstrap.state import RunFolder
from bootstrap.tracking import Tracker
from diffugen.files import read_json

ROW = {"round": 0, "promoted": True, "num_kept": 2, "seconds": {"label": 1.0}, "test/mask_map50": 0.5}
CLASSES = ("piano", "car")


def test_a_disabled_tracker_does_nothing_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now raises ImportError
    config = WandbConfig()
    tracker = Tracker(config, RunFolder(tmp_path / "run"))
    with caplog.at_level(logging.WARNING):
        tracker.start(config)
        tracker.log_round(ROW, CLASSES)
        tracker.finish([ROW])
    assert not caplog.text
    assert not (tmp_path / "run").exists()


def test_a_broken_tracker_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now raises ImportError
    config = WandbConfig(mode="offline")
    tracker = Tracker(config, RunFolder(tmp_path))
    with caplog.at_level(logging.WARNING):
        tracker.start(config)
        tracker.log_round(ROW, CLASSES)
        tracker.finish([ROW])
    assert "W&B: start failed" in caplog.text and "the run goes on" in caplog.text


def offline_files(run: RunFolder) -> list[Path]:
    return sorted(run.path.glob("wandb/**/*.wandb"))


def test_an_offline_run_holds_rounds_tables_and_artifacts(
    tmp_path: Path, make_samples: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no account of whoever runs the tests
    run = RunFolder(tmp_path / "run")
    folder = run.round(0)
    write_samples(folder, make_samples(folder.path, [[0], [0, 1], []], rejected={1: "low_iou:car"}))
    run.dataset.mkdir()
    (run.dataset / "data.yaml").write_text("names: [piano, car]\n")
    run.best.write_bytes(b"weights")
    config = WandbConfig(mode="online")
    for _ in range(2):  # the second time as a resumed run, which has nothing new to log
        tracker = Tracker(config, run)
        tracker.start(config)
        tracker.log_round(ROW, CLASSES)
        tracker.finish([ROW])
    state = read_json(run.path / "wandb" / "state.json")
    assert state["rounds"] == [0] and state["finished"] and state["id"]
    files = offline_files(run)
    assert files and all(state["id"] in path.name for path in files)
    logged = b"".join(path.read_bytes() for path in files)
    assert b"test/mask_map50" in logged and b"seconds/label" in logged
    assert b"media/table/samples" in logged
    assert b"run-dataset" in logged and b"run-best" in logged
