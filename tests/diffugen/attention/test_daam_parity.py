"""Heatmaps equal those of DAAM 0.2.0.

It takes one square prompt with guidance, on a UNet that calls itself 64x64, and sums over the steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import build_pipeline, sharpen_attention

from diffugen.attention.extract import generate_with_attention
from diffugen.attention.heatmaps import Heatmap
from diffugen.config.settings import GenerateConfig
from diffugen.prompts.prompt import ObjectPhrase, Prompt

PROMPT = Prompt(
    "a photo of a grand piano beside a tent",
    (ObjectPhrase("grand piano", "piano"), ObjectPhrase("tent", "tent")),
)


def trace_with_daam(pipe: Any, num_steps: int) -> Any:
    daam = pytest.importorskip("daam", reason="daam, the oracle, is not installed (dependency group 'oracle')")
    with torch.no_grad(), daam.trace(pipe) as trace:
        pipe(
            PROMPT.text,
            num_inference_steps=num_steps,
            height=512,
            width=512,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        )
    return trace


def ours(pipe: Any, num_steps: int) -> tuple[Heatmap, ...]:
    settings = GenerateConfig(height=512, width=512, num_inference_steps=num_steps)
    ((_, attention),) = generate_with_attention(pipe, [PROMPT], [1], settings)
    return attention.heatmaps


@pytest.mark.filterwarnings("ignore")
def test_equal_to_daam() -> None:
    pipe = build_pipeline()
    sharpen_attention(pipe.unet, 1 / 3)  # as diffusers initialises it
    pipe.unet.register_to_config(sample_size=64)
    reference = trace_with_daam(pipe, num_steps=3).compute_global_heat_map()
    for heatmap in ours(pipe, num_steps=3):
        expected = reference.compute_word_heat_map(heatmap.phrase).value.numpy() / 3
        assert np.abs(heatmap.values - expected).max() < 1e-3 * expected.max()
        assert expected.std() > 0.01 * expected.mean(), "the map must have something to compare"


@pytest.mark.filterwarnings("ignore")
def test_equal_to_daam_where_attention_is_sharp() -> None:
    """DAAM clips the interpolation's undershoots in every head and token; we keep neither, and clip the
    mean."""
    pipe = build_pipeline()
    pipe.unet.register_to_config(sample_size=64)
    trace = trace_with_daam(pipe, num_steps=2)
    sums: dict[int, list[torch.Tensor]] = {}
    for (factor, _, _), maps in trace.all_heat_maps:
        sums.setdefault(factor, []).append(maps / 2)
    piano, tent = (heatmap.values for heatmap in ours(pipe, num_steps=2))
    for values, positions in ((piano, [5, 6]), (tent, [9])):
        totals = [torch.stack(maps).sum(0)[positions].mean(0)[None, None] for maps in sums.values()]
        scaled = [F.interpolate(total, (64, 64), mode="bicubic").clamp(min=0)[0, 0] for total in totals]
        expected = (torch.stack(scaled).sum(0) / sum(map(len, sums.values()))).numpy()
        assert np.abs(values - expected).max() < 1e-3 * expected.max()
