"""Generating and looking on a GPU, in half precision, at full size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_gpu import (
    DEVICE,
    LATENT_HW,
    ON_GPU,
    SIDE,
    needs_gpu,
    peak_bytes_since_reset,
    release_memory,
    reset_peak,
)
from watching import watching

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.attention.heatmaps import ImageAttention, attention_of
from diffugen.config.settings import AttentionConfig, GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.files import read_jsonl
from diffugen.generation.batches import generate_batches
from diffugen.generation.estimate import estimate, memory_bytes
from diffugen.generation.plan import plan_samples
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Sample

pytestmark = needs_gpu

SETTINGS = GenerateConfig(height=SIDE, width=SIDE, num_inference_steps=4, batch_size=8)
PROMPTS = [
    Prompt(
        "a photo of a red car and a blue tent in a city at night",
        (ObjectPhrase("red car", "car"), ObjectPhrase("blue tent", "tent")),
    ),
    Prompt("a photo of a tent in the rain", (ObjectPhrase("tent", "tent"),)),
]
ROUNDING = 2  # grey levels: in half precision the GPU may add up in another order


def check_attention(attention: ImageAttention, prompt: Prompt) -> None:
    assert [heatmap.phrase for heatmap in attention.heatmaps] == [phrase.text for phrase in prompt.objects]
    for heatmap in attention.heatmaps:
        assert heatmap.values.shape == LATENT_HW and heatmap.values.dtype == np.float32
        assert np.isfinite(heatmap.values).all() and 0 < heatmap.values.mean() < 1


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_images_are_the_plain_pipelines(pipe: Any) -> None:
    plain = pipe(
        [prompt.text for prompt in PROMPTS],
        height=SIDE,
        width=SIDE,
        num_inference_steps=SETTINGS.num_inference_steps,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in (5, 6)],
    ).images
    watched = generate_with_attention(pipe, PROMPTS, [5, 6], SETTINGS)
    for prompt, expected, (image, attention) in zip(PROMPTS, plain, watched, strict=True):
        assert image.shape == (SIDE, SIDE, 3) and image.std() > 1  # neither black nor grey all over
        assert largest_difference(image, np.asarray(expected)) <= ROUNDING
        check_attention(attention, prompt)


@pytest.mark.parametrize("inpaint", [False, True], ids=["img2img", "inpaint"])
def test_images_from_images(pipe: Any, inpaint: bool) -> None:
    start = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[SIDE // 4 : SIDE // 2, SIDE // 4 :] = True
    starts = {"images": [start] * 2, "masks": [mask] * 2 if inpaint else None, "strength": 0.5}
    for prompt, (image, attention) in zip(
        PROMPTS, generate_with_attention(pipe, PROMPTS, [5, 6], SETTINGS, **starts), strict=True
    ):
        changed = (image != start).any(axis=2)
        assert changed[mask].mean() > 0.5
        assert not inpaint or not changed[~mask].any()
        check_attention(attention, prompt)


def test_all_that_can_be_kept_of_attention_is_finite(pipe: Any) -> None:
    weighted = Prompt("a photo of a (red car)1.4 at night", (ObjectPhrase("red car", "car"),))
    settings = watching(SETTINGS, self_attention_factor=2, attend="class_prompt")
    settings = settings.model_copy(update={"num_inference_steps": 2})
    prompts = [*PROMPTS, weighted]  # two groups: compel encodes the last one
    for prompt, (_, attention) in zip(
        prompts, generate_with_attention(pipe, prompts, [1, 2, 3], settings), strict=True
    ):
        check_attention(attention, prompt)
        assert attention.affinity is not None and np.isfinite(attention.affinity).all()
        half = (LATENT_HW[0] // 2, LATENT_HW[1] // 2)
        assert attention.affinity.shape == half + half


def test_presence_is_finite(pipe: Any) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in PROMPTS]
    read = read_attention(pipe, images, PROMPTS, AttentionConfig(presence=True))
    for prompt, attention in zip(PROMPTS, read, strict=True):
        check_attention(attention, prompt)
        assert attention.presence is not None and attention.presence.shape == (len(prompt.objects),)
        assert np.isfinite(attention.presence).all()


@pytest.mark.skipif(not ON_GPU, reason="nothing is offloaded from a CPU")
def test_an_offloaded_model_makes_the_same_image(pipe: Any, model: ModelConfig) -> None:
    settings = watching(SETTINGS.model_copy(update={"num_inference_steps": 2}), presence=True)
    ((expected, _),) = generate_with_attention(pipe, PROMPTS[:1], [5], settings)
    offloaded = load_pipeline(model.model_copy(update={"low_memory": True}))
    ((image, attention),) = generate_with_attention(offloaded, PROMPTS[:1], [5], settings)
    assert largest_difference(image, expected) <= ROUNDING
    check_attention(attention, PROMPTS[0])


def test_the_estimate_of_memory_is_near_the_peak(pipe: Any, model: ModelConfig) -> None:
    one = SETTINGS.model_copy(update={"batch_size": 1})
    reckoned = sum(memory_bytes(pipe, model, one))
    others = bytes_without_weights(pipe)
    reset_peak()
    generate_with_attention(pipe, PROMPTS[:1], [0], one)
    peak = peak_bytes_since_reset() - others
    print(f"\nGPU memory of one image: estimate {reckoned / 1e9:.3f} GB, peak {peak / 1e9:.3f} GB")
    assert reckoned > 0
    if ON_GPU:
        assert 0.7 <= reckoned / peak <= 1.5


def bytes_without_weights(pipe: Any) -> int:
    """Bytes of GPU memory that are in use but not the model's: what other tests still hold."""
    release_memory()
    weights = (weight for part in (pipe.unet, pipe.vae, pipe.text_encoder) for weight in part.parameters())
    return torch.cuda.memory_allocated() - sum(weight.nbytes for weight in weights) if ON_GPU else 0


def test_a_dry_run_measures(model: ModelConfig) -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 2})
    lines = estimate(
        model, settings, plan_samples(Path("out"), (), PROMPTS, list(range(len(PROMPTS))), settings, model="tiny")
    )
    print("", *lines, sep="\n")
    assert lines[1].startswith("time: about ")
    assert "at 2 images at a time" in lines[2] and lines[2].endswith("(measured)") == ON_GPU


def test_a_gpu_that_is_too_small_halves_the_batch(pipe: Any, tmp_path: Path) -> None:
    prompts, seeds = PROMPTS[1:] * 8, list(range(8))

    def make(name: str, num: int = 8) -> tuple[list[Sample], int]:
        reset_peak()
        plan = plan_samples(tmp_path / name, (), prompts[:num], seeds[:num], SETTINGS, model="tiny")
        generate_batches(pipe, plan, SETTINGS, progress=False)
        return list(plan.samples), peak_bytes_since_reset()

    _, one = make("one", 1)
    whole, eight = make("whole")
    with gpu_memory_limited(one + (eight - one) * 2 // 5):  # four images hardly fit, two do
        halved, peak = make("halved")
    print(f"\npeaks: 1 image {one / 1e9:.2f} GB, 8 {eight / 1e9:.2f} GB, limited {peak / 1e9:.2f} GB")
    sizes = [len(read_jsonl(part)) for part in sorted((tmp_path / "halved/parts").glob("batch_*.jsonl"))]
    print("batches:", sizes)
    assert sum(sizes) == 8
    if ON_GPU:
        assert peak < eight and max(sizes) < 8
    for record, expected in zip(halved, whole, strict=True):
        assert np.abs(record.pixels().astype(int) - expected.pixels()).mean() <= ROUNDING
        for heatmap, same in zip(attention_of(record).heatmaps, attention_of(expected).heatmaps, strict=True):
            np.testing.assert_allclose(heatmap.values, same.values, rtol=0.1, atol=1e-4)


@contextmanager
def gpu_memory_limited(num_bytes: int) -> Iterator[None]:
    """Let this process have so much of the GPU's memory, and have torch run out of it beyond; on a CPU nothing."""
    if not ON_GPU:
        yield
        return
    release_memory()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(num_bytes / total, torch.device(DEVICE, 0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.device(DEVICE, 0))
        release_memory()
