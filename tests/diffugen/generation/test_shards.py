"""`diffugen generate` by workers: the same files as by one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from executor_job import hash_of

from diffugen.cli.main import main
from diffugen.executor import local_pool
from diffugen.files import read_json


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As workers have: sums by two can differ in their last bits."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def config(tmp_path: Path, tiny_pipeline_dir: Path) -> Path:
    values: dict[str, Any] = {
        "num_images": 7,
        "model": {"path": str(tiny_pipeline_dir), "device": "cpu"},
        "prompts": {
            "templates": ["a photo of a {thing} {time}"],
            "objects": {"thing": {"car": ["car"], "tent": ["tent"]}},
            "attributes": {"time": ["at night", "in the rain", "by day", "at sunset"]},
        },
        "generate": {"height": 64, "width": 64, "num_inference_steps": 1, "batch_size": 2},
        "label": {"method": "paper", "min_area_fraction": 0.01},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return path


def generate(config: Path, out: Path, *settings: str) -> int:
    return main(["generate", str(config), "--out", str(out), *(f"--set={setting}" for setting in settings)])


def test_workers_make_what_one_process_makes(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_pool, "num_cores", lambda: 2)
    monkeypatch.setattr(local_pool, "USER_THREADS", None)
    alone, workers = tmp_path / "alone", tmp_path / "workers"
    assert generate(config, alone) == generate(config, workers, "executor.shard_size=4") == 0
    assert read_json(workers / "config.json")["executor"]["num_workers"] is None
    for folder in (alone, workers):
        (folder / "config.json").unlink()
        (folder / ".lock").unlink()
    assert hash_of(workers) == hash_of(alone)
    capsys.readouterr()
    assert generate(config, tmp_path / "other", "executor.num_workers=9") == 2
    assert "'executor.num_workers' is 9, but this machine has 2 cores" in capsys.readouterr().err
