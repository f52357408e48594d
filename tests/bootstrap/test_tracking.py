"""Tracking by W&B: off unless asked for, offline without an account, and never the end of a run."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from round_samples import make_instances

from bootstrap.config import WandbConfig
from bootstrap.measures.balance import balance
from bootstrap.measures.round import flatten, summarise_samples
from bootstrap.prompts import round_prompts
from bootstrap.row import MEASURES
from bootstrap.run_folder import RunFolder
from bootstrap.tracking import Tracker, _flat
from bootstrap.verdict import judge_round
from diffugen.config.loader import load_config
from diffugen.files import read_json
from diffugen.sample import Sample, write_samples
from train_loop import RunConfig

ROOT = Path(__file__).parents[2]
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
    [problem] = tracker.problems
    assert problem.startswith("Weights & Biases: starting the W&B run failed (") and problem in caplog.text


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


@functools.cache
def demo_row() -> dict[str, Any]:
    """A row as long as a demo's, by the loop's own functions: all measures, every attribute of the demo's prompts."""
    config = load_config(ROOT / "configs" / "demo.json", RunConfig)
    outcomes = itertools.cycle(["", "low_score", "no grand-piano"])
    samples = [
        Sample.labelled(f"r00_{number:06d}", Path("unused.png"), make_instances([0]), "train")
        for number in range(config.rounds.num_images)
    ]
    samples = [
        replace(sample, prompt=prompt, task="txt2img", reason=next(outcomes), labeler="attention")
        for sample, prompt in zip(samples, round_prompts(config, 0), strict=True)
    ]
    metrics = dict.fromkeys(("mask_map50", "mask_map50_95", "box_map50", "box_map50_95"), 0.5)
    scores: dict[str, Any] = dict.fromkeys(("mean", *config.classes), metrics)
    slots = balance(samples)
    return {
        **summarise_samples(samples), **dict.fromkeys(MEASURES, 0.25),
        **flatten(scores, "val", config.rare_classes), **flatten(scores, "test", config.rare_classes),
        "labels_from": "attention", "labels_why": "it is round 0", "why": "it is the first", "balance": slots,
        "seconds": dict.fromkeys(("generate", "label", "finetune", "compare", "evaluate"), 2.0),
        "test/by_attribute": {
            slot: {value: {"num_images": 3, "mask_map50": 0.125} for value in table["values"]}
            for slot, table in slots.items()
            if slot not in ("template", "phrase", "task")
        },
    }  # fmt: skip


def row_of(index: int, promoted: bool) -> dict[str, Any]:
    changes = {"round": index, "promoted": promoted, "test/mask_map50": 0.5 + index / 4}
    row = demo_row() | changes | {"images/vendi_score": None if index else 3.25}
    return row | {"verdict": judge_round(row).to_json()}


def track(run: RunFolder, rows: list[dict[str, Any]], *, finish: bool = True) -> list[str]:
    """Log rows as a loop does; returns what failed."""
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
    return tracker.problems


def tables_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of the tables that were logged last, by the tables' names."""
    found = {}
    for file in sorted(path.parent.rglob("media/table/*.table.json"), key=lambda file: file.stat().st_mtime_ns):
        table = json.loads(file.read_text())
        found[file.name.split("_")[0]] = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    return found


def test_the_offline_file_holds_every_rounds_numbers_tables_and_artifacts(run: RunFolder) -> None:
    rows = [row_of(0, True), row_of(1, False)]
    flat = _flat(rows[1])
    assert len(flat) > 300  # as a real demo's
    track(run, rows)
    [path] = run.path.glob("wandb/**/*.wandb")
    records = read_offline(path)
    logged = history_of(records)
    assert [row["round"] for row in logged] == [row["_step"] for row in logged] == [0, 1]
    for row, found in zip(rows, logged, strict=True):
        assert len(found) <= 60
        for key in ("num_kept", "test/mask_map50", "photos/found", "promoted"):
            assert found[key] == row[key]
        assert found["seconds"] == 10.0
        assert {found[f"{name}/_type"] for name in ("samples", "attributes", "details")} == {"table-file"}
        assert found["samples/nrows"] == 3
    tables = tables_of(path)
    assert logged[0]["images/vendi_score"] == 3.25 and "images/vendi_score" not in logged[1]
    details = {line["name"]: line["text"] or line["value"] for line in tables["details"]}
    for line in tables["attributes"]:
        counts = rows[1]["balance"][line["slot"]]["values"][line["value"]]
        assert {name: line[name] for name in counts} == counts
        assert line["test/mask_map50"] == (None if line["slot"] in ("template", "phrase") else 0.125)
    curves = {key for key in flat if key in logged[1]}
    assert set(details) | curves == {key for key in flat if not key.startswith(("balance/", "test/by_attribute/"))}
    assert details["verdict/reasons"] == "\n".join(rows[1]["verdict"]["reasons"])
    assert (details["why"], details["seconds/label"]) == ("it is the first", 2.0)
    assert details["rejected/low_score"] == rows[1]["rejected"]["low_score"] > 0


def test_both_artifacts_arrive_with_their_lineage(run: RunFolder) -> None:
    assert not track(run, [row_of(0, True), row_of(1, False)])
    [path] = run.path.glob("wandb/**/*.wandb")
    records = read_offline(path)
    artifacts = [r.request.log_artifact.artifact for r in records if r.request.HasField("log_artifact")]
    artifacts += [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    by_type = {artifact.type: artifact for artifact in artifacts}
    lineage = json.loads(by_type["model"].metadata)
    assert lineage["dataset"] == by_type["dataset"].name == "run-dataset"
    assert lineage["dataset_digest"] == by_type["dataset"].digest and lineage["round"] == 0
    assert 20 < len(lineage) <= 100 and lineage["test/mask_map50"] == 0.5
    files = {kind: {entry.path for entry in by_type[kind].manifest.contents} for kind in ("dataset", "model")}
    assert files == {"dataset": {"data.yaml"}, "model": {"best.pt"}}


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
