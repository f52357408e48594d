"""A model whose values are no numbers makes no images and no labels, and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.errors import UserError
from diffugen.generation.batches import generate_batches
from diffugen.generation.plan import plan_samples
from diffugen.prompts.prompt import ObjectPhrase, Prompt

PROMPTS = [Prompt("a red car on a road", (ObjectPhrase("red car", "car"),))]
SETTINGS = GenerateConfig(height=64, width=64, num_inference_steps=2, guidance_scale=2.0)
IMAGE = np.full((64, 64, 3), 90, np.uint8)


def spoilt(module: torch.nn.Module) -> None:
    next(module.parameters()).data.mul_(torch.nan)


@pytest.mark.parametrize(
    ("spoil", "options", "maker"),
    [
        (lambda pipe: spoilt(pipe.vae.decoder), {}, "the VAE's decoder"),
        (lambda pipe: spoilt(pipe.unet), {}, "the UNet"),
        (lambda pipe: spoilt(pipe.text_encoder), {}, "the UNet"),
        (lambda pipe: spoilt(pipe.vae.encoder), {"images": [IMAGE]}, "the UNet"),
        (lambda pipe: spoilt(pipe.vae.decoder), {"images": [IMAGE], "masks": [IMAGE[..., 0] > 0]}, "the VAE's decoder"),
    ],
)
def test_the_batch_is_stopped(spoil: Callable[[Any], None], options: dict, maker: str, tiny_pipeline: Any) -> None:
    spoil(tiny_pipeline)
    with pytest.raises(UserError, match=f"{maker} made values that are no numbers in float32.* are damaged"):
        generate_with_attention(tiny_pipeline, PROMPTS, [1], SETTINGS, **options)
    assert not tiny_pipeline.vae.decoder._forward_hooks


def test_half_precision_that_overflows_is_reported_with_the_remedy(make_tiny_pipeline: Callable[[], Any]) -> None:
    """In float32 the same weights make an image, as SDXL's do."""
    for dtype in (torch.float32, torch.float16):
        pipe = make_tiny_pipeline()
        pipe.vae.decoder.conv_in.weight.data.mul_(30_000)
        pipe.to(dtype=dtype)
        if dtype == torch.float32:
            generate_with_attention(pipe, PROMPTS, [1], SETTINGS)
        else:
            with pytest.raises(UserError, match='decoder .* float16: .* set model.dtype to "bfloat16" or "float32"'):
                generate_with_attention(pipe, PROMPTS, [1], SETTINGS)


def test_nothing_of_the_batch_is_written(tiny_pipeline: Any, tmp_path: Path) -> None:
    spoilt(tiny_pipeline.vae.decoder)
    with pytest.raises(UserError, match="no numbers"):
        plan = plan_samples(tmp_path, ["car"], PROMPTS, [1], SETTINGS, model="tiny")
        generate_batches(tiny_pipeline, plan, SETTINGS, progress=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("part", "presence", "maker"),
    [("unet", False, "the UNet"), ("vae", False, "the VAE's encoder"), ("unet", True, "the UNet")],
)
def test_photos_are_not_read_with_it_either(part: str, presence: bool, maker: str, tiny_pipeline: Any) -> None:
    spoilt(getattr(tiny_pipeline, part))
    settings = AttentionConfig(presence=presence)
    with pytest.raises(UserError, match=f"{maker} made values that are no numbers"):
        read_attention(tiny_pipeline, [IMAGE], PROMPTS, settings, timesteps=[100])
