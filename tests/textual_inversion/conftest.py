"""A concept small enough to learn in a second: three random photos and a tiny pipeline on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffugen.config.loader import validate
from diffugen.config.settings import ModelConfig
from textual_inversion.config import ConceptConfig


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
            "height": 24,
            "width": 32,
            "steps": 12,
            "batch_size": 2,
            "learning_rate": 0.02,
            "checkpoint_every": 4,
            "augment": {"views_per_photo": 3},
            "samples": {"num_images": 0},
        }
        return validate({**small, **settings}, ConceptConfig)

    return make


@pytest.fixture
def tiny_model(tiny_pipeline_dir: Path) -> ModelConfig:
    """The tiny pipeline's folder, as a model config names it."""
    return validate({"path": str(tiny_pipeline_dir), "device": "cpu"}, ModelConfig)
