"""Self-attention is what the layers compute, bounded, and looking does not change the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from tiny_models import TEXT_WIDTH
from watching import watching

from diffugen.attention.extract import generate_with_attention
from diffugen.attention.hooks import attention_layers
from diffugen.attention.self_attention import SelfAttentionCapture
from diffugen.config.settings import GenerateConfig
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt

SETTINGS = GenerateConfig(height=64, width=96, num_inference_steps=2)
PROMPTS = [Prompt("a photo of a red car", (ObjectPhrase("red car", "car"),)), Prompt("a road at night")]


def test_equal_to_what_the_layers_compute(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = tiny_pipeline.unet
    unet.set_attn_processor(AttnProcessor())  # computes the probabilities in the open
    seen: list[torch.Tensor] = []
    for layer in attention_layers(unet, "attn1"):

        def spy(query: Any, key: Any, mask: Any = None, scores: Any = layer.get_attention_scores) -> Any:
            seen.append(scores(query, key, mask))
            return seen[-1]

        monkeypatch.setattr(layer, "get_attention_scores", spy)
    monkeypatch.setattr("diffugen.attention.self_attention.MAX_LOGITS", 1000)  # in several chunks
    with SelfAttentionCapture(unet, 2, (10, 14), factor=2) as capture, torch.no_grad():
        unet(torch.randn(2, 4, 10, 14), 100, torch.randn(2, 77, TEXT_WIDTH))
    coarse = [scores.unflatten(0, (2, -1)).mean(1) for scores in seen if scores.shape[-1] == 35]
    expected = torch.stack(coarse).mean(0).reshape(2, 5, 7, 5, 7).numpy()
    np.testing.assert_allclose(np.stack(capture.maps()), expected, atol=1e-4)
    assert len(coarse) > 1 and expected.std() > 1e-4


def test_the_image_stays_and_the_maps_are_of_the_conditional_half(tiny_pipeline: Any) -> None:
    plain = generate_with_attention(tiny_pipeline, PROMPTS, [1, 2], SETTINGS)
    settings = watching(SETTINGS, self_attention_factor=2)
    watched = generate_with_attention(tiny_pipeline, PROMPTS, [1, 2], settings)
    for (image, attention), (expected, without) in zip(watched, plain, strict=True):
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(attention.rest, without.rest)
        assert attention.affinity is not None and without.affinity is None
        assert attention.affinity.shape == (4, 6, 4, 6) and attention.affinity.dtype == np.float16
        np.testing.assert_allclose(attention.affinity.astype(float).sum((2, 3)), 1, atol=2e-3)


def test_affinity_is_bounded(tiny_pipeline: Any) -> None:
    settings = watching(SETTINGS.model_copy(update={"height": 512, "width": 400}), self_attention_factor=1)
    with pytest.raises(UserError, match="self_attention_factor 1 makes maps of 64x50 pixels, more than 2304"):
        generate_with_attention(tiny_pipeline, PROMPTS, [1, 2], settings)


def test_a_resolution_that_is_not_there(tiny_pipeline: Any) -> None:
    settings = watching(SETTINGS, self_attention_factor=4)
    with pytest.raises(RuntimeError, match="no self-attention at factor 4 was seen"):
        generate_with_attention(tiny_pipeline, PROMPTS, [1, 2], settings)
