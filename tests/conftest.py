"""Fixtures of all tests: fresh copies of a tiny random pipeline."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import that reads it: no test fetches anything

import pytest
from diffusers import StableDiffusionPipeline
from tiny_models import build_pipeline


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
