"""Tracking by W&B: off unless asked for, offline without an account, and never the end of a run."""

from __future__ import annotations

import json
import logging
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from bootstrap.config import WandbConfig
from bootstrap.run_folder import RunFolder
from bootstrap.tracking import Tracker
from diffugen.files import read_json
from diffugen.sample import write_samples

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


def read_offline(path: Path) -> list[Any]:
    """The records of a `.wandb` file: LevelDB's log format, in blocks of 32 KiB, of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert struct.unpack("<4sHB", content[:7])[0] == b":W&B"
    records, parts, position = [], b"", 7
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:  # a block's padding
            position += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + 7])
        data = content[position + 7 : position + 7 + length]
        assert zlib.crc32(bytes([kind]) + data) == checksum
        position += 7 + length
        parts = data if kind in (1, 2) else parts + data  # 1 full, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            records.append(Record.FromString(parts))
    return records


def history_of(records: list[Any]) -> list[dict[str, Any]]:
    """The rows that were logged, by key."""
    rows = (record.history for record in records if record.WhichOneof("record_type") == "history")
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]


@pytest.fixture
def run(tmp_path: Path, make_samples: Callable, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of two rounds on a machine without a W&B account."""
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no account of whoever runs the tests
    run = RunFolder(tmp_path / "run")
    for folder in (run.round(0), run.round(1)):
        write_samples(folder.samples, make_samples(folder.path, [[0], [0, 1], []], rejected={1: "low_iou:car"}))
    run.dataset.mkdir()
    (run.dataset / "data.yaml").write_text("names: [piano, car]\n")
    run.best.write_bytes(b"weights")
    return run


def row_of(index: int, promoted: bool) -> dict[str, Any]:
    counts = {"generated": 4, "keep": 3 - index, "reject": 1 + index, "review": 0, "agreement": None}
    return {
        "round": index, "promoted": promoted, "why": "for a test", "num_kept": 2 + index, "label_agreement": None,
        "seconds": {"label": 1.5 + index}, "test/mask_map50": 0.5 + index / 4, "images/vendi_score": 3.25,
        "balance": {"time": {"p_value": 0.25, "values": {"at night": counts}}},
        "test/by_attribute": {"time": {"night": {"num_images": 3, "mask_map50": 0.125}}},
    }  # fmt: skip


def track(run: RunFolder, rows: list[dict[str, Any]], *, finish: bool = True) -> None:
    config = WandbConfig(mode="online")
    tracker = Tracker(config, run)
    tracker.start(config)
    for row in rows:
        tracker.log_round(row, CLASSES)
    if finish:
        tracker.finish(rows)
    else:
        tracker._wandb.finish()  # whatever was written before a kill
    wandb.teardown()  # W&B's own process writes the rest of the file while it ends


def test_the_offline_file_holds_every_rounds_numbers_tables_and_artifacts(run: RunFolder) -> None:
    rows = [row_of(0, True), row_of(1, False)]
    track(run, rows)
    [path] = run.path.glob("wandb/**/*.wandb")
    records = read_offline(path)
    logged = history_of(records)
    assert [row["round"] for row in logged] == [row["_step"] for row in logged] == [0, 1]
    for row, found in zip(rows, logged, strict=True):
        for key in ("num_kept", "test/mask_map50", "images/vendi_score", "promoted", "why"):
            assert found[key] == row[key]
        assert found["seconds/label"] == row["seconds"]["label"]
        assert found["balance/time/values/at night/keep"] == row["balance"]["time"]["values"]["at night"]["keep"]
        assert found["test/by_attribute/time/night/mask_map50"] == 0.125
        assert "label_agreement" not in found
        tables = {name: found[f"{name}/nrows"] for name in ("samples", "balance", "by_attribute")}
        assert tables == {"samples": 3, "balance": 1, "by_attribute": 1}
        assert found["samples/_type"] == "table-file"
    artifacts = [r.request.log_artifact.artifact for r in records if r.request.HasField("log_artifact")]
    artifacts += [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    by_type = {artifact.type: artifact for artifact in artifacts}
    lineage = json.loads(by_type["model"].metadata)
    assert lineage["dataset"] == by_type["dataset"].name == "run-dataset"
    assert lineage["dataset_digest"] == by_type["dataset"].digest and lineage["round"] == 0


def test_a_resumed_run_continues_the_same_wandb_run(run: RunFolder) -> None:
    rows = [row_of(0, True), row_of(1, True)]
    track(run, rows[:1], finish=False)
    first = read_json(run.path / "wandb" / "state.json")
    track(run, rows)
    track(run, rows)  # nothing new to log
    state = read_json(run.path / "wandb" / "state.json")
    assert state == {"id": first["id"], "rounds": [0, 1], "artifacts_of": 1}
    paths = sorted(run.path.glob("wandb/**/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == 3 and all(state["id"] in path.name for path in paths)
    logged = [[(row["_step"], row["round"]) for row in history_of(read_offline(path))] for path in paths]
    assert sorted(logged) == [[], [(0, 0)], [(1, 1)]]
