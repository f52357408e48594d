"""The toy pipeline's parts, and that their training resumes exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen.toyworld.captions import caption
from diffugen.toyworld.scene import TRAINING_KINDS, sample_scene
from diffugen.toyworld.train import caption_words
from diffugen.toyworld.training import latents, train_unet, train_vae
from diffugen.toyworld.training.model import build_tokenizer, build_unet, build_vae
from diffugen.toyworld.training.muon import Muon, orthogonalised

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


def test_loss_weights_are_the_root_of_min_snr_with_a_floor() -> None:
    squares = train_unet.loss_weight(torch.tensor([0.999, 0.9, 0.5, 0.0])).square()
    assert squares.tolist() == pytest.approx([0.1, 0.5, 0.5, 0.1])


def test_pixels_of_objects_count_more_and_the_mean_stays_one() -> None:
    objects = torch.zeros(2, 12, 20)
    objects[0, :6] = 1.0
    weights = train_unet.pixel_weight(objects)
    assert weights.mean(dim=(1, 2)).tolist() == pytest.approx([1.0, 1.0])
    assert weights[0, 0, 0] / weights[0, -1, -1] == pytest.approx(6.0)
    assert weights[1].unique().tolist() == [1.0]


def test_muon_steps_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((24, 60), (60, 24)):
        singular = torch.linalg.svdvals(orthogonalised(torch.randn(shape) @ torch.randn(shape[1], shape[1])))
        assert 0.5 < singular.median() < 1.3
        assert singular.max() < 1.4


def test_muon_trains_a_convolution() -> None:
    torch.manual_seed(0)
    target, layer = torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(4, 8, 3)
    optimizer = Muon([layer.weight], 1e-2)
    images = torch.randn(16, 4, 10, 14)
    losses = []
    for _ in range(40):
        loss = (layer(images) - target(images)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_plain_attention_computes_what_the_fused_kernel_does() -> None:
    unet = build_unet().eval()
    inputs = torch.randn(1, 4, 12, 20), torch.tensor([300]), torch.randn(1, 77, 128)
    with torch.no_grad():
        fused = unet(*inputs).sample
        unet.set_attn_processor(train_unet.PlainAttention())
        assert torch.allclose(unet(*inputs).sample, fused, atol=1e-4)


def test_rate_warms_up_stays_and_falls() -> None:
    rates = [train_unet.rate(step, 1000, 0.3) for step in (0, 400, 850, 999)]
    assert rates == pytest.approx([1 / 200, 1.0, 0.5, 1 / 300])


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tokenizer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(latents, "_CHUNK", 4)
    monkeypatch.setattr(train_unet, "write_sheet", lambda pipe, path: None)
    monkeypatch.setattr(train_unet, "rate", lambda step, num_steps, decay_fraction: 1.0)
    torch.manual_seed(0)
    vae = build_vae().eval()

    def train(out: Path, num_steps: int) -> list[float]:
        train_unet.train_unet(
            out,
            vae,
            tokenizer,
            num_scenes=4,
            num_images=2 * num_steps,
            decay_fraction=0.3,
            batch_size=2,
            save_every=2,
            device=CPU,
        )
        return np.loadtxt(out / "losses.csv", skiprows=1).tolist()

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "stopped", 2)
    assert train(tmp_path / "stopped", 4) == whole
    files = [tmp_path / name / "pipeline/unet/diffusion_pytorch_model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_chunks_hold_scenes_with_their_captions(tokenizer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(latents, "_CHUNK", 4)
    cache = latents.LatentCache(tmp_path, build_vae().eval(), tokenizer, num_scenes=12, device=CPU, seed=3)
    encoded, objects, tokens = cache.batch(np.random.default_rng(0), 5, caption_dropout=0.0)
    assert encoded.shape[:2] == (5, 4) and objects.shape == (5, *encoded.shape[2:]) and tokens.shape == (5, 77)
    assert 0 < objects.mean() < 0.6
    words = [caption(sample_scene(3 * 10**7 + k), wording) for k in range(12) for wording in range(8)]
    read = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert set(read) <= {text.replace(",", " ,") for text in words} | set(words)
    empty = cache.batch(np.random.default_rng(0), 5, caption_dropout=1.0)[2]
    assert tokenizer.batch_decode(empty, skip_special_tokens=True) == [""] * 5


def test_workers_draw_the_same_scenes(tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(latents, "_CHUNK", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    jobs = [(seed, (64, 64)) for seed in range(8)]
    drawn = list(latents.draw_scenes(jobs, tokenizer))
    expected = [latents.draw_chunk(job, tokenizer, 1) for job in jobs]
    assert all(np.array_equal(a, b) for pair in zip(drawn, expected, strict=True) for a, b in zip(*pair, strict=True))
