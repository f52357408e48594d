"""Learning a concept on a GPU, in mixed precision, at full size; and a whole loop of tiny models."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_gpu import DEVICE, DTYPE, ON_GPU, needs_gpu, release_memory
from PIL import Image

import train_loop
from bootstrap.run_folder import RunFolder
from diffugen.config.loader import validate
from diffugen.config.settings import GenerateConfig, ModelConfig
from diffugen.diffusion.embeddings import read_embedding
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.files import read_jsonl
from textual_inversion.config import ConceptConfig
from textual_inversion.learn import Setup, learn_concept
from textual_inversion.module import ConceptModule
from textual_inversion.placeholder import initializer_ids

pytestmark = needs_gpu


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos as phones and scanners make them: transparent, grey, turned by EXIF, of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (700, 500, 4), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "transparent.png")
    Image.fromarray(noise[:300, :420, 0]).save(folder / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: turn by 90 degrees
    Image.fromarray(noise[:600, :, :3]).save(folder / "turned.jpg", exif=turned)
    return folder


def concept(photos: Path, **settings: Any) -> ConceptConfig:
    values = {
        "placeholder_token": "<grand-piano>",
        "initializer_word": "car",
        "photos": str(photos),
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 0.01,
    }
    return validate(values | settings, ConceptConfig)


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few views of each photo, one image with and one without the concept."""
    monkeypatch.setattr("textual_inversion.data.VIEWS_PER_PHOTO", 2)
    monkeypatch.setattr("textual_inversion.pictures.NUM_SAMPLES", 1)
    monkeypatch.setattr("textual_inversion.module.LOOK_EVERY", 1)


def setup_of(model: ModelConfig) -> Setup:
    return Setup(model, GenerateConfig(num_inference_steps=2))


def learned_row(path: Path) -> torch.Tensor:
    (rows,) = read_embedding(path)["<grand-piano>"]
    return rows[0].float()


def initial_row(model: ModelConfig) -> torch.Tensor:
    pipe = load_pipeline(model.model_copy(update={"device": "cpu", "dtype": "float32"}))
    return pipe.text_encoder.get_input_embeddings().weight[initializer_ids("car", pipe.tokenizer)].mean(0).detach()


def losses(out: Path) -> np.ndarray:
    with (out / "loss.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def test_a_stopped_training_goes_on(
    photos: Path, model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = concept(photos)
    initial = initial_row(model)
    whole = learned_row(learn_concept(config, setup_of(model), tmp_path / "whole", progress=False))
    assert whole.shape == initial.shape and whole.isfinite().all()
    # In half precision the first steps may be skipped, until the losses' scale fits: not all of them.
    assert 0.001 < (whole - initial).abs().max() < 0.5
    assert len(losses(tmp_path / "whole")) == 6 and np.isfinite(losses(tmp_path / "whole")).all()

    step = ConceptModule.training_step

    def stop(self: ConceptModule, draw: Any, index: int) -> torch.Tensor:
        if self.global_step == 5:
            raise RuntimeError("stopped")
        return step(self, draw, index)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(ConceptModule, "training_step", stop)
        learn_concept(config, setup_of(model), tmp_path / "cut", progress=False)
    checkpoint = torch.load(tmp_path / "cut/checkpoints/latest.ckpt", map_location="cpu", weights_only=True)
    assert checkpoint["global_step"] == 5
    resumed = learned_row(learn_concept(config, setup_of(model), tmp_path / "cut", progress=False))
    np.testing.assert_allclose(losses(tmp_path / "cut"), losses(tmp_path / "whole"), rtol=0.05)
    # Adam makes steps of one length of the smallest gradients too, whose sign is rounding's: the way, not the spot.
    alike = torch.nn.functional.cosine_similarity(resumed - initial, whole - initial, dim=0)
    print(f"\nlosses {losses(tmp_path / 'whole')}, likeness of the resumed run {alike:.4f}")
    assert alike > 0.8
    release_memory()


def test_bfloat16_lora_and_held_out_photos(photos: Path, model: ModelConfig, tmp_path: Path) -> None:
    config = concept(
        photos,
        steps=3,
        num_vectors=2,
        lora_rank=2,
        num_held_out_photos=1,
    )
    out = tmp_path / "out"
    path = learn_concept(config, setup_of(model.model_copy(update={"dtype": "bfloat16"})), out, progress=False)
    (rows,) = read_embedding(path)["<grand-piano>"]
    assert len(rows) == 2 and rows.isfinite().all() and np.isfinite(losses(out)).all()
    assert (out / "samples.png").is_file()
    loads = load_pipeline(model.model_copy(update={"embeddings": (path,), "lora": out / "lora.safetensors"}))
    assert loads.device.type == DEVICE
    release_memory()


def test_a_whole_loop(loop_inputs: Path, tmp_path: Path) -> None:
    """Tiny models, one round: concept, images, labels, detector, measures and report, each on the GPU."""
    inputs, out = tmp_path / "inputs", tmp_path / "run"
    shutil.copytree(loop_inputs, inputs)
    settings = {
        "model.device": DEVICE,
        "model.dtype": DTYPE,
        "detector.device": "0" if ON_GPU else "cpu",
        "rounds.num_rounds": 1,
    }
    overrides = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert train_loop.main([str(inputs / "config.json"), "--out", str(out), *overrides]) == 0
    run = RunFolder(out)
    assert run.best.is_file() and run.report.is_file()
    (row,) = read_jsonl(run.metrics)
    assert row["promoted"] is True and 0 <= row["test/mask_map50"] <= 1
