"""A round whose images workers generate, label and re-label."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from loop_run import before_the_last_round, decisions, metrics_without

import train_loop
from bootstrap import shards
from bootstrap.run_folder import RunFolder
from diffugen.executor import local_pool
from diffugen.files import read_json


def test_a_worker_makes_the_round_that_one_process_makes(
    finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last round of a run that one process began; who does the work may change."""
    run = before_the_last_round(finished_loop, tmp_path / "run")
    shutil.rmtree(run.round(1).path)
    monkeypatch.setattr(local_pool, "USER_THREADS", str(torch.get_num_threads()))  # as the other run was made
    for alone in ("generate_labelled", "label_samples"):
        monkeypatch.setattr(shards, alone, None)  # by this process
    settings = ["--set", "executor.num_workers=1", "executor.shard_size=4"]
    assert train_loop.main([str(loop_inputs / "config.json"), "--out", str(run.path), *settings]) == 0
    assert decisions(run) == decisions(finished_loop)
    assert metrics_without(run, "seconds") == metrics_without(finished_loop, "seconds")
    assert files(run) == files(finished_loop)
    assert read_json(run.round(1).decision)["labels_from"] == "detector"
    assert run.round(1).relabelled(0).is_file()


def files(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.suffix != ".cache"}
