"""Whether an object is in the image: words that are right help to denoise it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watching import watching

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.attention.presence import _without, with_presence
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.labelers.attention import MIN_PRESENCE, AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.toyworld import render
from diffugen.toyworld.scene import sample_scene

WEIGHTS = Path(__file__).parents[3] / "diffugen/toyworld/weights/pipeline"


def prompt_of(text: str, *phrases: str) -> Prompt:
    return Prompt(text, tuple(ObjectPhrase(phrase, phrase) for phrase in phrases))


@pytest.mark.parametrize(
    ("text", "phrases", "expected"),
    [
        ("a photo of a red car by day", ("red car",), ["a photo of a by day"]),
        ("a red car and a car", ("red car", "car"), ["a and a car", "a red car and a"]),
        ("a car and a Car", ("car", "car"), ["a and a", "a and a"]),
        ("a skyscraper under the sky", ("sky",), ["a skyscraper under the"]),
        ("a <grand-piano> on a road", ("<grand-piano>",), ["a on a road"]),
    ],
)
def test_a_phrase_is_left_out_wherever_it_stands_by_itself(
    text: str, phrases: tuple[str, ...], expected: list[str]
) -> None:
    prompt = prompt_of(text, *phrases)
    assert [_without(prompt, phrase).text for phrase in prompt.objects] == expected


def test_what_is_in_the_image_is_distinguished_from_what_is_not() -> None:
    """Rendered scenes: the presence of the object shown, and of one that is not, beside it or alone."""
    pipe = load_pipeline(ModelConfig(path=str(WEIGHTS)))
    images = [render(sample_scene(5_100_000 + k, required_kinds=("car",), num_objects=1)).image for k in range(4)]
    settings = AttentionConfig(self_attention_factor=0, presence=True)
    prompts = [prompt_of("a photo of a car and a barrel", "car", "barrel")] * 4
    read = read_attention(pipe, images, prompts, settings)
    shown, absent = np.array([one.presence for one in read]).T
    alone = read_attention(pipe, images, [prompt_of("a photo of a barrel", "barrel")] * 4, settings)
    assert (shown > MIN_PRESENCE).all() and (absent < MIN_PRESENCE).all()
    assert np.mean([one.presence for one in alone]) < MIN_PRESENCE


def test_no_result_depends_on_the_batch(tiny_pipeline: Any) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(2)]
    prompts = [prompt_of("a red car and a tent", "red car", "tent"), prompt_of("a dog", "dog")]
    settings = AttentionConfig()
    attention = read_attention(tiny_pipeline, images, prompts, settings)
    assert [one.presence for one in attention] == [None, None]
    together = with_presence(tiny_pipeline, images, prompts, attention)
    (alone,) = with_presence(tiny_pipeline, images[1:], prompts[1:], attention[1:], batch_size=1)
    assert together[0].presence.shape == (2,) and together[1].presence.dtype == np.float32
    np.testing.assert_allclose(together[1].presence, alone.presence, rtol=0.05)  # rounding differs by batch


def test_words_that_are_not_in_the_prompt_are_unknown(tiny_pipeline: Any) -> None:
    attention = AttentionConfig(attend="class_prompt", presence=True)
    settings = GenerateConfig(height=64, width=64, num_inference_steps=2, attention=attention)
    prompt = prompt_of("a car at night", "car", "tent")
    (image, found), *_ = generate_with_attention(tiny_pipeline, [prompt], [1], settings)
    assert found.presence is not None and np.isnan(found.presence).tolist() == [False, True]
    plain = watching(settings, presence=False)
    assert (image == generate_with_attention(tiny_pipeline, [prompt], [1], plain)[0][0]).all()


def test_an_absent_object_gets_no_label(tmp_path: Path) -> None:
    heat = np.full((12, 12), 0.02, np.float32)
    heat[2:6, 1:6] = 0.3
    prompt = prompt_of("a car and a tent", "car", "tent")
    heatmaps = (Heatmap("car", heat), Heatmap("tent", heat[::-1, ::-1].copy()))
    labeler = AttentionLabeler(("car", "tent"), AttentionLabelConfig())

    def classes(*presence: float) -> list[int]:
        attention = ImageAttention(heatmaps, np.zeros_like(heat), presence=np.array(presence, np.float32))
        attention.save(tmp_path / "attention.npz")
        loaded = ImageAttention.load(tmp_path / "attention.npz", ["car", "tent"])
        item = LabelInput(np.zeros((96, 96, 3), np.uint8), prompt, loaded)
        return sorted(labeler.label([item])[0].class_ids.tolist())

    assert classes(0.2, 0.01) == [0]
    assert classes(0.2, float("nan")) == [0, 1]  # it could not be told
    assert classes(0.0, 0.01) == []
