"""The whole loop on a tiny random model: its folder, its errors, and that killing it changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train_loop
from bootstrap.samples import read_samples
from bootstrap.state import RunFolder
from diffugen.dataset import DatasetItem, write_dataset
from diffugen.detector import new_detector, save_detector
from diffugen.files import read_json, read_jsonl, write_jsonl
from diffugen.images import write_png
from diffugen.instances import Instances

ROOT = Path(__file__).parents[1]
CLASSES = ["piano", "car"]
CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "classes": CLASSES,
    "rare_classes": ["piano"],
    "concept": {
        "placeholder_token": "<piano>",
        "initializer_word": "tent",
        "photos": "photos",
        "height": 64,
        "width": 96,
        "steps": 4,
        "batch_size": 1,
        "checkpoint_every": 1,
        "augment": {"views_per_photo": 1},
        "samples": {"num_images": 0},
    },
    "prompts": {
        "templates": [
            {"text": "a photo of a {rare} {time}", "weight": 4},
            {"text": "a photo of a {rare} beside a {common}"},
            {"text": "a photo of a road {time}", "weight": 3},
        ],
        "objects": {"rare": {"piano": ["<piano>"]}, "common": {"car": ["red car"]}},
        "attributes": {"time": ["at night", "in the rain", ""]},
    },
    "generate": {"height": 64, "width": 96, "num_inference_steps": 1, "guidance_scale": 3, "batch_size": 2},
    # A random model's attention is noise; smeared over the image, every phrase has its one component.
    "label": {"method": "paper", "erode_fraction": 0, "dilate_fraction": 0.1, "min_area_fraction": 0.2},
    "detector": {
        "base_weights": "base.safetensors",
        "imgsz": 64,
        "epochs": 1,
        "batch_size": 4,
        "device": "cpu",
    },
    "rounds": {
        "num_rounds": 2,
        "num_images": 8,
        "val_fraction": 0.25,
        "switch_agreement": 0.0,
        "filter": {"min_score": 0.0},
    },
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline_dir: Path) -> Path:
    """A folder with all that a run needs: photos, a base detector, config.json and a set with truth."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for number in range(2):
        write_png(folder / "photos" / f"{number}.png", rng.integers(0, 255, (80, 112, 3), dtype=np.uint8))
    torch.manual_seed(0)
    save_detector(new_detector(["car", "tent"]), folder / "base.safetensors")
    write_truth(folder / "truth", rng)
    config = CONFIG | {
        "model": {"path": str(tiny_pipeline_dir), "device": "cpu"},
        "evaluation": {"dataset": "truth"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_truth(folder: Path, rng: np.random.Generator, num: int = 2) -> None:
    """Images of noise in which a block is a piano and another a car."""
    masks = np.zeros((2, 64, 96), bool)
    masks[0, 8:40, 8:48] = masks[1, 30:60, 60:90] = True
    items = [
        DatasetItem(
            str(number),
            rng.integers(0, 255, (64, 96, 3), dtype=np.uint8),
            Instances.from_masks(masks, [0, 1]),
            "test",
        )
        for number in range(num)
    ]
    write_dataset(folder, items, CLASSES)
    times = ({"name": str(number), "attributes": {"time": ("day", "night")[number % 2]}} for number in range(num))
    write_jsonl(folder / "captions.jsonl", times)


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert train_loop.main([str(inputs / "config.json"), "--out", str(out)]) == 0
    return RunFolder(out)


def decisions(run: RunFolder) -> dict[str, bytes]:
    """All files of a run but measurements on the truth and of time, as bytes by relative path."""
    files = [path for path in run.path.rglob("*") if path.is_file()]
    told = {"config.json", "seconds.json", "metrics.json", "metrics.jsonl", "checksums.json", "report.html", ".lock"}
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in files
        if path.name not in told and path.suffix not in (".cache", ".pt")  # ultralytics puts dates and paths there
    }


def metrics_without(run: RunFolder, *prefixes: str) -> list[dict[str, Any]]:
    rows = read_jsonl(run.metrics)
    return [{key: value for key, value in row.items() if not key.startswith(prefixes)} for row in rows]


def test_a_run_leaves_the_folder_that_the_design_describes(finished: RunFolder) -> None:
    rounds = finished.complete_rounds()
    assert [folder.index for folder in rounds] == [0, 1]
    for folder in rounds:
        for sample in read_samples(folder):
            assert sample.source.image().shape == (64, 96, 3)
            assert len(sample.source.heatmaps()) == len(sample.source.prompt.objects)
            assert (folder.masks / f"{sample.source.id}.png").is_file()
        assert (folder.dataset / "data.yaml").is_file() and (folder.dataset / "coco" / "train.json").is_file()
        assert not (folder.path / "finetune").exists()
    assert (finished.concept / "learned_embeds.safetensors").is_file()
    assert finished.best.is_file() and (finished.dataset / "data.yaml").is_file() and finished.report.is_file()
    assert read_json(finished.config)["config"]["seed"] == 3


def test_rows_of_metrics_have_what_was_promised(finished: RunFolder) -> None:
    rows = read_jsonl(finished.metrics)
    assert [row["labeler"] for row in rows] == ["attention", "detector"]
    assert rows[0]["promoted"] is True
    for row in rows:
        assert row["num_generated"] == 8 == row["num_kept"] + row["num_rejected"] + row["num_review"]
        assert sum(row["rejected"].values()) == row["num_rejected"]
        assert {"generate", "label"} <= set(row["seconds"])
    assert {"test/mask_map50", "test/mask_map50_95", "test/box_map50", "test/car/mask_map50"} <= set(rows[0])
    assert {"val/mean/mask_map50_95", "val/piano/mask_map50_95"} <= set(rows[0])


def test_rows_of_metrics_have_the_objective_measures(finished: RunFolder) -> None:
    rows = read_jsonl(finished.metrics)
    assert {"test/labels/attention/mean_iou", "test/labels/attention/recall"} <= set(rows[0])
    for row in rows:
        assert 1 <= row["images/vendi_score"] <= 8 and 0 <= row["images/near_duplicate_fraction"] < 1
        assert {"images/kept/mean_distance", "images/rare/kernel_distance_photos"} <= set(row)
        assert {"test/images/kernel_distance", "test/labels/detector/recall"} <= set(row)
        times = row["balance"]["time"]
        assert set(times["values"]) == {"at night", "in the rain", "(none)"} and 0 < times["p_value"] <= 1
        assert sum(value["generated"] for value in times["values"].values()) <= 8
        by_time = row["test/by_attribute"]["time"]
        assert {name: value["num_images"] for name, value in by_time.items()} == {"day": 1, "night": 1}
        assert "mask_map50_95" in by_time["night"]


def test_a_corrupt_file_of_a_finished_round_is_named(
    finished: RunFolder, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = finished.round(0).samples
    content = samples.read_bytes()
    samples.write_bytes(content.replace(b"keep", b"kept", 1))
    try:
        sentence = error_of([str(inputs / "config.json"), "--out", str(finished.path)], capsys)
    finally:
        samples.write_bytes(content)
    assert "round_00/samples.jsonl is corrupt" in sentence


def test_the_validation_split_is_frozen_and_never_trained_on(finished: RunFolder) -> None:
    first, second = finished.complete_rounds()
    frozen = {sample.name for sample in read_samples(first) if sample.split == "val"}
    assert frozen and not any(sample.split == "val" for sample in read_samples(second))
    for folder in (first, second):
        names = {
            split: {path.stem for path in (folder.dataset / "images" / split).iterdir()} for split in ("train", "val")
        }
        assert names["val"] == frozen
        assert not names["train"] & frozen
        assert names["train"]
    assert (first.dataset / "coco" / "val.json").read_bytes() == (second.dataset / "coco" / "val.json").read_bytes()


def test_a_finished_run_given_again_changes_nothing(finished: RunFolder, inputs: Path) -> None:
    before, rows = decisions(finished), read_jsonl(finished.metrics)
    assert train_loop.main([str(inputs / "config.json"), "--out", str(finished.path)]) == 0
    assert decisions(finished) == before
    assert read_jsonl(finished.metrics) == rows


def test_the_truth_is_for_reporting_only(finished: RunFolder, inputs: Path, tmp_path: Path) -> None:
    config = read_json(inputs / "config.json")
    blind = tmp_path / "blind.json"
    values = config | {"evaluation": None, "concept": config["concept"] | {"photos": str(inputs / "photos")}}
    values["detector"] = config["detector"] | {"base_weights": str(inputs / "base.safetensors")}
    blind.write_text(json.dumps(values))
    assert train_loop.main([str(blind), "--out", str(tmp_path / "run")]) == 0
    run = RunFolder(tmp_path / "run")
    assert decisions(run) == decisions(finished)
    assert metrics_without(run, "seconds") == metrics_without(finished, "seconds", "test/")


def kill_when(run: RunFolder, inputs: Path, reached: Callable[[], bool], log: Path) -> int:
    """Start the command in a process of its own, and SIGKILL it as soon as something is reached."""
    command = [sys.executable, "train_loop.py", str(inputs / "config.json"), "--out", str(run.path)]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        while process.poll() is None and not reached():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        return process.wait()


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    finished: RunFolder, inputs: Path, tmp_path: Path
) -> None:
    run, log = RunFolder(tmp_path / "run"), tmp_path / "log"
    moments = [
        lambda: any((run.round(0).path / "parts").glob("batch_*.jsonl")),
        lambda: (run.round(0).path / "finetune").exists(),
    ]
    for reached in moments:
        assert kill_when(run, inputs, reached, log) == -signal.SIGKILL, log.read_text()
        assert not run.round(0).complete
    assert train_loop.main([str(inputs / "config.json"), "--out", str(run.path)]) == 0
    assert decisions(run) == decisions(finished)
    assert metrics_without(run, "seconds") == metrics_without(finished, "seconds")


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which the command refuses."""
    assert train_loop.main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1 and "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rounds.num_round=2", "unknown setting 'rounds.num_round'; did you mean 'num_rounds'?"),
        ("concept.photos=nowhere", "concept.photos"),
        ("concept.placeholder_token=<harp>", "'concept.placeholder_token': '<harp>' is in no prompt"),
        ("detector.base_weights=nothing.pt", "'detector.base_weights'"),
        ("model.path=./nothing", "model.path"),
        ("evaluation.dataset=nothing", "'evaluation.dataset'"),
        (
            'prompts.templates.0.text=("a photo of a {rare} {time}", "a road++ at night").and()',
            "uses more of compel than weights",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, sentence: str
) -> None:
    arguments = [str(inputs / "config.json"), "--out", str(tmp_path / "run"), "--set", setting]
    assert sentence in error_of(arguments, capsys)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(("name", "content"), [("empty", None), ("corrupt", b"\x89PNG\r\n\x1a\n no picture")])
def test_photos_are_checked_before_any_work(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    photos = tmp_path / name
    photos.mkdir()
    if content is not None:
        (photos / "0.png").write_bytes(content)
    arguments = [
        str(inputs / "config.json"),
        "--out",
        str(tmp_path / "run"),
        "--set",
        f"concept.photos={photos}",
    ]
    assert "concept.photos" in error_of(arguments, capsys)


def test_a_changed_config_is_refused(finished: RunFolder, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(inputs / "config.json"), "--out", str(finished.path), "--set", "seed=4"]
    assert "setting 'seed' changed from 3 to 4" in error_of(arguments, capsys)


def test_a_folder_in_use_is_refused(finished: RunFolder, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with finished.locked():
        sentence = error_of([str(inputs / "config.json"), "--out", str(finished.path)], capsys)
    assert f"in use by process {os.getpid()}" in sentence


def test_a_rare_object_with_a_plain_word_needs_no_concept(inputs: Path, tmp_path: Path) -> None:
    settings = [
        "concept=null",
        "evaluation=null",
        "rounds.num_rounds=1",
        'prompts.objects.rare.piano=["grand piano"]',
    ]
    arguments = [str(inputs / "config.json"), "--out", str(tmp_path / "run")]
    for setting in settings:
        arguments += ["--set", setting]
    assert train_loop.main(arguments) == 0
    assert RunFolder(tmp_path / "run").best.is_file()
    assert not RunFolder(tmp_path / "run").concept.exists()
