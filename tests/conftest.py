"""Fixtures of all tests: fresh copies of a tiny random pipeline."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import that reads it: no test fetches anything

import network
import pytest
from diffusers import StableDiffusionPipeline
from hypothesis import settings
from tiny_models import build_pipeline

# Fuzzers draw the same examples every time; the bar is run with `--hypothesis-profile=bar`.
settings.register_profile("usual", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("bar", max_examples=10_000, deadline=None, derandomize=True)
settings.load_profile("usual")

os.fsync = lambda descriptor: None  # no test needs to survive a power cut, and the disk is slow
sys.addaudithook(network.cut_off)


if TYPE_CHECKING:
    from loop_run import RecordedLoop

    from bootstrap.run_folder import RunFolder


@pytest.fixture(scope="session")
def pipeline_template() -> StableDiffusionPipeline:
    """Built once; never run or change it: take `tiny_pipeline` or `make_tiny_pipeline`."""
    return build_pipeline()


@pytest.fixture(scope="session")
def make_tiny_pipeline(pipeline_template: StableDiffusionPipeline) -> Callable[[], Any]:
    """A function that gives a fresh copy of the tiny pipeline, for fixtures of a wider scope."""

    def make() -> Any:
        parts = {name: copy.deepcopy(part) for name, part in pipeline_template.components.items()}
        pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def tiny_pipeline(make_tiny_pipeline: Callable[[], Any]) -> Any:
    """A tiny random StableDiffusionPipeline of the test's own: float32 on the CPU, VAE of factor 8."""
    return make_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_pipeline_dir(pipeline_template: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pipeline saved as a folder; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-pipeline"
    pipeline_template.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loop_inputs(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline_dir: Path) -> Path:
    """A folder with all that a loop needs, `config.json` among it; read only."""
    from loop_run import write_inputs

    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, tiny_pipeline_dir)
    return folder


@pytest.fixture(scope="session")
def recorded_loop(loop_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordedLoop:
    """A run that nobody disturbed, what it flushed and renamed, and what hosts it asked; read only."""
    from disk_events import recording
    from loop_run import RecordedLoop

    import train_loop
    from bootstrap.run_folder import RunFolder

    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with recording() as events, network.asked() as hosts:
        assert train_loop.main([str(loop_inputs / "config.json"), "--out", str(out)]) == 0
    return RecordedLoop(RunFolder(out), events, hosts)


@pytest.fixture(scope="session")
def finished_loop(recorded_loop: RecordedLoop) -> RunFolder:
    """A run that nobody disturbed; read only."""
    return recorded_loop.run
