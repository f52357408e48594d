"""What a run survives: kills, signals, a full disk, a second process, a changed config, damaged files."""

from __future__ import annotations

import errno
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loop_run import decisions, error_of, metrics_without

import train_loop
from bootstrap.run_folder import RunFolder
from diffugen.files import read_json
from diffugen.images import write_png

ROOT = Path(__file__).parents[1]

STAGES = [
    ("concept/*", 4, 3),
    ("round_00/images/*", 12, 2),
    ("round_00/parts/*", 3, 1),
    ("round_00/masks/*", 16, 2),
    ("round_00/.dataset.diffugen-tmp/*", 18, 2),
    ("round_00/finetune/*", 3, 2),
    ("round_00/weights/*", 2, 1),
    ("round_00/*validation.json*", 2, 1),
    ("round_00/*decision.json*", 2, 1),
    ("round_00/*metrics.json*", 2, 1),
    ("*dataset*", 19, 1),
    ("*best.pt*", 2, 1),
    ("*report.html*", 2, 1),
    ("round_01/heatmaps/*", 12, 2),
    ("round_01/*samples.jsonl*", 2, 1),
    ("round_01/*relabelled*", 2, 1),
    ("round_01/*dataset*", 18, 1),
    ("round_01/finetune/*", 3, 1),
    ("round_01/*checksums.json*", 2, 1),
    ("*metrics.jsonl*", 2, 1),
    ("*report.html*", 2, 1),
]
"""In the order of a run: what a stage writes, how often it does so at least even where it goes on, and how often it is
killed there."""


def disturb(run: RunFolder, inputs: Path, name: str, number: int, pattern: str) -> tuple[list[str], int, str]:
    """Start the command in a process that sends itself a signal, see self_signal; its words, exit code and errors."""
    command = [sys.executable, "train_loop.py", str(inputs / "config.json"), "--out", str(run.path)]
    environment = {
        "SIGNAL_AT": f"{name} {number} {pattern}",
        "SIGNAL_IN": str(run.path),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "self_signal"), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    return command, done.returncode, done.stderr


def finish(run: RunFolder, inputs: Path, undisturbed: RunFolder) -> None:
    """The same command ends with the same decisions as a run that nobody disturbed, and with no other files."""
    assert train_loop.main([str(inputs / "config.json"), "--out", str(run.path)]) == 0
    assert decisions(run) == decisions(undisturbed)
    assert metrics_without(run, "seconds") == metrics_without(undisturbed, "seconds")
    assert files(run) == files(undisturbed)


def files(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.suffix != ".cache"}


def test_a_run_killed_and_stopped_ends_like_one_that_was_not(
    finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    for number, pattern in ((6, "concept/*"), (3, "round_00/finetune/*"), (2, "*report.html*")):
        _, code, errors = disturb(run, loop_inputs, "SIGKILL", number, pattern)
        assert code == -signal.SIGKILL, errors
    command, code, errors = disturb(run, loop_inputs, "SIGTERM", 5, "round_01/images/*")
    assert code == 143, errors
    message, _, named = errors.splitlines()[-1].partition("; to resume, run: ")
    assert message == "train_loop: stopped by SIGTERM"
    assert shlex.split(named) == command
    finish(run, loop_inputs, finished_loop)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_random_moments_of_every_stage_ends_like_one_that_was_not(
    finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path
) -> None:
    run, draw = RunFolder(tmp_path / "run"), random.Random(0)
    moments = [(draw.randint(1, most), pattern) for pattern, most, kills in STAGES for _ in range(kills)]
    assert len(moments) >= 20
    for number, pattern in moments:
        _, code, errors = disturb(run, loop_inputs, "SIGKILL", number, pattern)
        assert code == -signal.SIGKILL, f"at {pattern}, {number}: {errors}"
    finish(run, loop_inputs, finished_loop)


def test_a_disk_that_fills_up_is_one_sentence_and_the_run_goes_on(
    finished_loop: RunFolder,
    loop_inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = [str(loop_inputs / "config.json"), "--out", str(run.path)]
    for place in (
        "concept/checkpoints/latest.ckpt",
        "concept/learned_embeds.safetensors",
        "round_00/heatmaps/000003.npz",
        "round_00/masks/000001.png",
        "round_00/dataset",
        "round_00/finetune/detector",  # ultralytics' own files
        "round_00/weights/best.pt",
        "round_01/images/000002.png",
        "round_01/metrics.json",
        "report.html",
    ):
        with monkeypatch.context() as patch:
            fill_disk(patch, run.path / place)
            assert train_loop.main(arguments) == 2
        errors = capsys.readouterr().err  # progress bars come before
        assert errors.splitlines()[-1].startswith(
            f"train_loop: error: no space left on the disk for {run.path / place}; free some"
        )
        assert "Traceback" not in errors
    finish(run, loop_inputs, finished_loop)


def fill_disk(patch: pytest.MonkeyPatch, place: Path) -> None:
    """No space for a file or folder: renaming to it fails, and writing into it."""
    rename, write = os.replace, Path.write_bytes

    def full_at(path: Any) -> None:
        if fnmatch(str(path), str(place)) or place in Path(path).parents:
            raise OSError(errno.ENOSPC, "No space left on device")

    def replace(source: Any, target: Any) -> None:
        full_at(target)
        rename(source, target)

    def write_bytes(path: Path, content: bytes) -> int:
        full_at(path)
        return write(path, content)

    patch.setattr(os, "replace", replace)
    patch.setattr(Path, "write_bytes", write_bytes)


def test_a_corrupt_file_of_a_finished_round_is_named(
    finished_loop: RunFolder, loop_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = finished_loop.round(0).samples
    content = samples.read_bytes()
    samples.write_bytes(content.replace(b"keep", b"kept", 1))
    try:
        sentence = error_of([str(loop_inputs / "config.json"), "--out", str(finished_loop.path)], capsys)
    finally:
        samples.write_bytes(content)
    assert "round_00/samples.jsonl is corrupt" in sentence


def test_a_changed_config_is_refused(
    finished_loop: RunFolder, loop_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(loop_inputs / "config.json"), "--out", str(finished_loop.path), "--set", "seed=4"]
    assert "setting 'seed' changed from 3 to 4" in error_of(arguments, capsys)


def test_a_project_that_was_moved_goes_on_and_ends_the_same(
    finished_loop: RunFolder, loop_inputs: Path, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    run = moved_project(finished_loop, loop_inputs, tiny_pipeline_dir, tmp_path)
    for path in run.round(1).path.iterdir():
        if path.name not in ("images", "heatmaps", "parts"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.best.unlink()
    shutil.rmtree(run.dataset)
    assert train_loop.main([str(tmp_path / "config.json"), "--out", str(run.path)]) == 0
    assert decisions(run) == decisions(finished_loop)
    assert read_json(run.config) == read_json(finished_loop.config)


def test_other_photos_in_a_moved_project_are_named(
    finished_loop: RunFolder,
    loop_inputs: Path,
    tiny_pipeline_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = moved_project(finished_loop, loop_inputs, tiny_pipeline_dir, tmp_path)
    write_png(tmp_path / "photos" / "0.png", np.zeros((80, 112, 3), np.uint8))
    sentence = error_of([str(tmp_path / "config.json"), "--out", str(run.path)], capsys)
    assert "setting 'concept.0.photos' changed from" in sentence


def moved_project(finished_loop: RunFolder, loop_inputs: Path, pipeline: Path, folder: Path) -> RunFolder:
    """Copies of a run, of what it was started from and of its model, as if all had been moved."""
    shutil.copytree(loop_inputs, folder, dirs_exist_ok=True)
    shutil.copytree(pipeline, folder / "model")
    values = read_json(folder / "config.json") | {"model": {"path": "model", "device": "cpu"}}
    (folder / "config.json").write_text(json.dumps(values))
    return RunFolder(Path(shutil.copytree(finished_loop.path, folder / "run")))


def test_a_folder_in_use_is_refused(
    finished_loop: RunFolder, loop_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with finished_loop.locked():
        sentence = error_of([str(loop_inputs / "config.json"), "--out", str(finished_loop.path)], capsys)
    assert f"in use by process {os.getpid()}" in sentence
