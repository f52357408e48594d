"""A loop whose images workers generate, label and re-label."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop_run import decisions, metrics_without

import train_loop
from bootstrap.run_folder import RunFolder
from diffugen.executor import local_pool
from diffugen.files import read_json


@pytest.mark.slow
def test_workers_make_the_run_that_one_process_makes(
    finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "USER_THREADS", str(torch.get_num_threads()))  # as the other run was made
    run = RunFolder(tmp_path / "run")
    settings = ["--set", "executor.num_workers=1", "executor.shard_size=4"]
    assert train_loop.main([str(loop_inputs / "config.json"), "--out", str(run.path), *settings]) == 0
    assert decisions(run) == decisions(finished_loop)
    assert metrics_without(run, "seconds") == metrics_without(finished_loop, "seconds")
    assert files(run) == files(finished_loop)
    assert any(read_json(folder.decision)["labels_from"] == "detector" for folder in run.complete_rounds())
    config = str(loop_inputs / "config.json")
    assert train_loop.main([config, "--out", str(run.path)]) == 0  # who does the work may change


def files(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.suffix != ".cache"}
