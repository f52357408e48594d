"""A whole loop on a tiny random model: its config, and what of its folder must not depend on chance."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disk_events import DiskEvent

import train_loop
from bootstrap.run_folder import RunFolder
from diffugen.datasets.folder import write_dataset
from diffugen.detector.model import new_detector, save_detector
from diffugen.files import link_file, link_tree, read_jsonl, write_jsonl
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.sample import Sample


@dataclass(frozen=True)
class RecordedLoop:
    """A run, what it flushed and renamed, and the hosts that it asked for."""

    run: RunFolder
    events: list[DiskEvent]
    hosts: list[str]


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
        "steps": 4,
        "batch_size": 1,
        "on_failure": "continue",
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
    "label": {"method": "paper", "min_area_fraction": 0.2},
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


def write_inputs(folder: Path, pipeline: Path) -> None:
    """All that a run needs: photos, a base detector, config.json and a set with truth."""
    rng = np.random.default_rng(0)
    for number in range(2):
        write_png(folder / "photos" / f"{number}.png", rng.integers(0, 255, (80, 112, 3), dtype=np.uint8))
    torch.manual_seed(0)
    save_detector(new_detector(["car", "tent"]), folder / "base.safetensors")
    write_truth(folder / "truth", rng)
    config = CONFIG | {
        "model": {"path": str(pipeline), "device": "cpu"},
        "evaluation": {"dataset": "truth"},
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_truth(folder: Path, rng: np.random.Generator, num: int = 2) -> None:
    """Images of noise in which a block is a piano and another a car."""
    masks = np.zeros((2, 64, 96), bool)
    masks[0, 8:40, 8:48] = masks[1, 30:60, 60:90] = True
    items = [
        Sample.labelled(
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


def before_the_last_round(finished: RunFolder, path: Path) -> RunFolder:
    """A copy of a run as it was when the last round's files were there, but the first round's were still published."""
    run = RunFolder(path)
    subprocess.run(["cp", "-a", finished.path, path], check=True)
    run.round(1).metrics.unlink()
    run.best.unlink()
    shutil.rmtree(run.dataset)
    link_file(run.round(0).weights, run.best)
    link_tree(run.round(0).dataset, run.dataset)
    return run


def decisions(run: RunFolder) -> dict[str, bytes]:
    """All files of a run but measurements on the truth and of time, as bytes by relative path."""
    files = [path for path in run.path.rglob("*") if path.is_file()]
    left_out = {
        "config.json",
        "seconds.json",
        "metrics.json",
        "metrics.jsonl",
        "checksums.json",
        "report.html",
        ".lock",
    }
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in files
        if path.name not in left_out and path.suffix not in (".cache", ".pt")  # ultralytics puts dates and paths there
    }


def metrics_without(run: RunFolder, *prefixes: str) -> list[dict[str, Any]]:
    rows = read_jsonl(run.metrics)
    return [{key: value for key, value in row.items() if not key.startswith(prefixes)} for row in rows]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which the command refuses."""
    assert train_loop.main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("train_loop: ")]
    assert len(lines) == 1 and "Traceback" not in captured.err
    return lines[0]
