"""The toy pipeline's parts, and that their training resumes exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen.toyworld import latents, train_unet, train_vae
from diffugen.toyworld.model import build_tokenizer, build_vae
from diffugen.toyworld.scene import TRAINING_KINDS
from diffugen.toyworld.train import caption_words

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(caption_words())


def test_every_kind_is_one_token(tokenizer) -> None:
    assert all(len(tokenizer(kind).input_ids) == 3 for kind in TRAINING_KINDS)
    assert tokenizer.model_max_length == 77


def test_an_unknown_word_is_spelt_and_survives_saving(tokenizer, tmp_path: Path) -> None:
    text = "a photo of a skyscraper, <grand-piano>"
    tokenizer.save_pretrained(tmp_path)
    assert type(tokenizer).from_pretrained(tmp_path)(text).input_ids == tokenizer(text).input_ids
    assert len(tokenizer("skyscraper").input_ids) > 3


def test_normalised_latents_decode_to_the_same_image() -> None:
    torch.manual_seed(0)
    vae = build_vae().eval()
    images = torch.rand(8, 3, 40, 64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mean).sample
        train_vae.normalise_latents(vae, images)
        means = vae.encode(images).latent_dist.mean
        after = vae.decode(means).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(means.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(means.std((0, 2, 3)), torch.ones(4), atol=1e-4)


def test_loss_weights_are_min_snr_with_a_floor() -> None:
    weights = train_unet.loss_weight(torch.tensor([0.999, 0.5, 0.0]))
    assert weights.tolist() == pytest.approx([5 / 1000, 0.5, 0.1], abs=0.1)
    assert weights[2] == pytest.approx(0.1)


def test_rate_warms_up_stays_and_falls() -> None:
    rates = [train_unet.rate(step, 1000, 0.3) for step in (0, 400, 850, 999)]
    assert rates == pytest.approx([1 / 200, 1.0, 0.5, 1 / 300])


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tokenizer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(latents, "_CHUNK", 4)
    monkeypatch.setattr(train_unet, "_SAVE_EVERY", 2)
    monkeypatch.setattr(train_unet, "write_sheet", lambda pipe, path: None)
    monkeypatch.setattr(train_unet, "rate", lambda step, num_steps, decay_fraction: 1.0)
    torch.manual_seed(0)
    vae = build_vae().eval()

    def train(out: Path, num_steps: int) -> list[float]:
        train_unet.train_unet(
            out, vae, tokenizer, num_scenes=4, num_images=2 * num_steps, decay_fraction=0.3, batch_size=2, device=CPU
        )
        return np.loadtxt(out / "losses.csv", skiprows=1).tolist()

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "stopped", 2)
    assert train(tmp_path / "stopped", 4) == whole
    files = [tmp_path / name / "pipeline/unet/diffusion_pytorch_model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
