"""Weights reach the UNet, long prompts are read to their end, and plain prompts stay the pipeline's own affair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TEXT_WIDTH
from watching import watching

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.diffusion.prompt_encoding import encode_prompts, needs_compel, parse_weights
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt

SETTINGS = GenerateConfig(height=64, width=96, num_inference_steps=2)
LONG = "a red car " + "beside a tree " * 30 + "and a tent at night"


def prompt_of(text: str, *phrases: str, negative: str = "") -> Prompt:
    return Prompt(text, tuple(ObjectPhrase(phrase, phrase) for phrase in phrases), negative_text=negative)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a car (at night)", [("a car (at night)", 1)]),
        ("a well-lit car, pre- and post-war", [("a well-lit car, pre- and post-war", 1)]),
        ("a red car++ on a road", [("a red", 1), ("car", 1.21), ("on a road", 1)]),
        ("a <grand-piano>--, a car", [("a", 1), ("<grand-piano>", 0.81), (", a car", 1)]),
        ("a (red car:1.4) on a road", [("a", 1), ("red car", 1.4), ("on a road", 1)]),
        ("a (red car)1.4 on a road", [("a", 1), ("red car", 1.4), ("on a road", 1)]),
        ("((red:1.2) car:1.5)", [("red", 1.8), ("car", 1.5)]),
    ],
)
def test_weights_are_parsed(text: str, expected: list[tuple[str, float]]) -> None:
    parsed = parse_weights(text)
    assert [words for words, _ in parsed] == [words for words, _ in expected]
    assert [weight for _, weight in parsed] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize("text", ['("a car", "a tent").and() car++', '("a car++ at night", "a tent").blend(1, 1)'])
def test_compels_other_operators_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="weights"):
        parse_weights(text)


def test_without_weights_the_embeddings_are_the_pipelines(tiny_pipeline: Any) -> None:
    tiny_pipeline.load_textual_inversion({"<it>": torch.randn(3, TEXT_WIDTH)}, token="<it>")
    text = "a red <it> on a road, at night"
    assert not needs_compel(tiny_pipeline, text)
    expected, _ = tiny_pipeline.encode_prompt(text, "cpu", 1, False)
    embeds, pooled = encode_prompts(tiny_pipeline, [parse_weights(text)])
    torch.testing.assert_close(embeds, expected.detach())
    assert pooled is None


def test_weights_change_the_image_and_stay_with_their_tokens(tiny_pipeline: Any) -> None:
    prompts = [
        prompt_of(text, "red car", "road")
        for text in ("a red car on a road", "a (red car:1.4) on a road", "a red car-- on a road")
    ]
    results = generate_with_attention(tiny_pipeline, prompts, [1, 1, 1], SETTINGS)
    for image, attention in results[1:]:
        assert (image != results[0][0]).any()
        heats = zip(attention.heatmaps, results[0][1].heatmaps, strict=True)
        assert all(np.abs(weighted.values - plain.values).max() > 1e-4 for weighted, plain in heats)
    plain = [prompt_of("a red car on a road", "red car", "road", negative=text) for text in ("tent", "tent++")]
    (first, _), (second, _) = generate_with_attention(tiny_pipeline, plain, [1, 1], SETTINGS)
    assert (first != second).any()


def test_long_prompts_are_read_to_their_end(tiny_pipeline: Any) -> None:
    prompts = [prompt_of(LONG, "red car", "tent"), prompt_of(LONG.replace("tent", "road"), "red car", "road")]
    results = generate_with_attention(tiny_pipeline, prompts, [1, 1], SETTINGS)
    (tent_image, tent), (road_image, road) = results
    assert tent.num_tokens == road.num_tokens == 154
    assert (tent_image != road_image).any()  # the last words count
    assert np.abs(tent.heatmaps[1].values - road.heatmaps[1].values).max() > 1e-4
    long_negative = prompt_of("a red car", "red car", negative=LONG)
    ((_, attention),) = generate_with_attention(tiny_pipeline, [long_negative], [1], SETTINGS)
    assert attention.num_tokens == 154


@pytest.mark.parametrize("attend", ["tokens", "class_prompt"])
def test_no_prompt_changes_another(tiny_pipeline: Any, attend: str) -> None:
    """Plain, weighted and long ones in one batch give what each gives alone."""
    prompts = [
        prompt_of("a red car", "red car", negative="(rain:1.4)"),
        prompt_of(LONG, "red car", "tent"),
        prompt_of("a (red car:1.4)", "red car"),
        prompt_of("a tent at night", "tent"),
    ]
    settings = watching(SETTINGS.model_copy(update={"num_inference_steps": 1}), attend=attend)
    together = generate_with_attention(tiny_pipeline, prompts, [1, 2, 3, 4], settings)
    photos = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)] * len(prompts)
    read = read_attention(tiny_pipeline, photos, prompts, AttentionConfig(attend=attend), timesteps=[100])
    for index, prompt in enumerate(prompts):
        ((image, attention),) = generate_with_attention(tiny_pipeline, [prompt], [index + 1], settings)
        assert np.abs(image.astype(int) - together[index][0]).max() <= 1
        options = AttentionConfig(attend=attend)
        (alone,) = read_attention(tiny_pipeline, photos[:1], [prompt], options, timesteps=[100])
        for expected, found in ((attention, together[index][1]), (alone, read[index])):
            assert found.num_tokens == expected.num_tokens
            np.testing.assert_allclose(found.rest, expected.rest, rtol=1e-3, atol=1e-6)
            for first, second in zip(found.heatmaps, expected.heatmaps, strict=True):
                np.testing.assert_allclose(first.values, second.values, rtol=1e-3)
