"""A concept small enough to learn in a second: three random photos and a tiny pipeline on disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffugen.config.loader import validate
from diffugen.config.settings import GenerateConfig, ModelConfig
from textual_inversion.config import ConceptConfig
from textual_inversion.learn import Setup


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Three photos of different sizes and orientations."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, size_hw in enumerate([(40, 60), (70, 33), (24, 32)]):
        Image.fromarray(random_image(index, size_hw)).save(folder / f"{index}.png")
    return folder


def random_image(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Noise, uint8 RGB [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@pytest.fixture
def make_concept(photo_folder: Path) -> Callable[..., ConceptConfig]:
    """`make_concept(**settings)`: a concept of a few steps on the photos."""

    def make(**settings: Any) -> ConceptConfig:
        small: dict[str, Any] = {
            "placeholder_token": "<grand-piano>",
            "initializer_word": "car",
            "photos": str(photo_folder),
            "steps": 12,
            "batch_size": 2,
            "learning_rate": 0.02,
        }
        return validate({**small, **settings}, ConceptConfig)

    return make


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few views of each photo, one image with and one without the concept."""
    monkeypatch.setattr("textual_inversion.data.VIEWS_PER_PHOTO", 3)
    monkeypatch.setattr("textual_inversion.pictures.NUM_SAMPLES", 1)


@pytest.fixture(scope="session")
def smaller_pipeline_dir(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline, made for images of 24x32 pixels; read only."""
    folder = tmp_path_factory.mktemp("models") / "smaller-pipeline"
    shutil.copytree(tiny_pipeline_dir, folder)
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": [3, 4]}))
    return folder


@pytest.fixture
def tiny_model(smaller_pipeline_dir: Path) -> ModelConfig:
    """The tiny pipeline's folder, as a model config names it."""
    return validate({"path": str(smaller_pipeline_dir), "device": "cpu"}, ModelConfig)


@pytest.fixture
def setup(tiny_model: ModelConfig) -> Setup:
    """The tiny pipeline, one step per image."""
    return Setup(tiny_model, GenerateConfig(num_inference_steps=1))
