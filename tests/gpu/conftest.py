"""The model of the GPU's tests: Stable Diffusion 1.5's architecture with random weights, saved as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from on_gpu import DEVICE, DTYPE, ON_GPU, release_memory
from tiny_models import build_pipeline

from diffugen.config.loader import validate
from diffugen.config.settings import ModelConfig
from diffugen.diffusion.pipelines import load_pipeline


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder; read only."""
    from attribution_overhead import build_sd15

    folder = tmp_path_factory.mktemp("models") / "full-size"
    pipe = build_sd15(DEVICE).to(dtype=getattr(torch, DTYPE)) if ON_GPU else build_pipeline()
    pipe.save_pretrained(folder)
    del pipe
    release_memory()
    return folder


@pytest.fixture(scope="session")
def model(model_dir: Path) -> ModelConfig:
    return validate({"path": str(model_dir), "device": DEVICE, "dtype": DTYPE}, ModelConfig)


@pytest.fixture(scope="module")
def pipe(model: ModelConfig) -> Any:
    """The model, loaded once; tests must not change it."""
    return load_pipeline(model)
