"""Heatmaps are absolute, and looking does not change the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.models.attention_processor import SlicedAttnProcessor
from tiny_models import TEXT_WIDTH
from watching import watching

from diffugen.attention.cross_attention import CrossAttentionCapture, _fused, phrase_attention
from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.attention.heatmaps import ImageAttention
from diffugen.attention.hooks import attention_layers, split_heads
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.diffusion.pipelines import as_task
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt

SETTINGS = GenerateConfig(height=64, width=96, num_inference_steps=2)


def prompt_of(text: str, *phrases: str, negative: str = "") -> Prompt:
    return Prompt(text, tuple(ObjectPhrase(phrase, phrase) for phrase in phrases), negative_text=negative)


PROMPTS = (
    prompt_of("a photo of a red car on a road", "red car"),
    prompt_of("a grand piano beside a tent", "grand piano", "tent", negative="a house"),
    prompt_of("a road at night"),
)


def plain_images(pipe: Any, prompts: tuple[Prompt, ...], seeds: list[int], **settings: Any) -> list[np.ndarray]:
    negatives = [prompt.negative_text for prompt in prompts]
    images = pipe(
        prompt=[prompt.text for prompt in prompts],
        negative_prompt=negatives if any(negatives) else None,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **settings,
    ).images
    return [np.asarray(image) for image in images]


def num_hooks(unet: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules())


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 7.5])
def test_the_image_is_the_plain_pipelines_to_the_bit(tiny_pipeline: Any, guidance_scale: float) -> None:
    settings = SETTINGS.model_copy(update={"guidance_scale": guidance_scale})
    plain = plain_images(tiny_pipeline, PROMPTS, [5, 6, 7], height=64, width=96, guidance_scale=guidance_scale)
    results = generate_with_attention(tiny_pipeline, PROMPTS, [5, 6, 7], settings)
    assert all((image == expected).all() for (image, _), expected in zip(results, plain, strict=True))
    assert [[heatmap.phrase for heatmap in attention.heatmaps] for _, attention in results] == [
        ["red car"],
        ["grand piano", "tent"],
        [],
    ]
    assert all(heatmap.values.shape == (8, 12) for _, attention in results for heatmap in attention.heatmaps)


def test_a_batch_gives_what_single_images_give(tiny_pipeline: Any) -> None:
    together = generate_with_attention(tiny_pipeline, PROMPTS[:2], [5, 6], SETTINGS)
    for prompt, seed, (image, attention) in zip(PROMPTS, [5, 6], together, strict=False):
        ((alone, alone_attention),) = generate_with_attention(tiny_pipeline, [prompt], [seed], SETTINGS)
        assert np.abs(alone.astype(int) - image).max() <= 1
        for first, second in zip(alone_attention.heatmaps, attention.heatmaps, strict=True):
            np.testing.assert_allclose(first.values, second.values, rtol=1e-3)


def test_guidance_leaves_only_the_conditional_half(tiny_pipeline: Any) -> None:
    """With one step the UNet sees the same latents with and without guidance."""
    maps = []
    for guidance_scale in (1.0, 7.5):
        settings = SETTINGS.model_copy(update={"guidance_scale": guidance_scale, "num_inference_steps": 1})
        ((_, attention),) = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], settings)
        maps.append(attention.heatmaps[0].values)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-2)  # a batch of two rounds otherwise


def test_probabilities_are_absolute(tiny_pipeline: Any) -> None:
    """All tokens together, the padding too, have a mean attention of 1 in every pixel."""
    rows = [[[index] for index in range(77)]]
    with CrossAttentionCapture(tiny_pipeline.unet, rows, (9, 12), factors=(1,)) as capture, torch.no_grad():
        tiny_pipeline.unet(torch.randn(1, 4, 9, 12), 100, torch.randn(1, 77, TEXT_WIDTH))
    (maps,) = capture.maps()
    assert maps.shape == (77, 9, 12) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(0), 1, rtol=1e-4)
    assert maps.std() > 0.005


def test_phrase_attention_equals_the_full_softmax(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = attention_layers(tiny_pipeline.unet, "attn2")[0]
    query, key = torch.randn(2, 54, layer.inner_dim), torch.randn(2, 77, layer.inner_dim)
    heads = [layer.head_to_batch_dim(side) for side in (query, key)]
    full = layer.get_attention_scores(*heads).unflatten(0, (2, layer.heads)).sum(1)
    weights = torch.zeros(2, 77, 1)
    weights[0, [3, 4]], weights[1, 7] = 0.5, 1.0
    expected = torch.stack([full[0, :, [3, 4]].mean(-1), full[1, :, 7]])[:, None]
    for limit in (2**24, 2000):  # the second takes the pixels in chunks
        monkeypatch.setattr("diffugen.attention.cross_attention.MAX_LOGITS", limit)
        torch.testing.assert_close(phrase_attention(layer, query, key, weights), expected)
    fused = _fused(layer, *split_heads(layer, query, key), weights)  # a GPU's way
    torch.testing.assert_close(fused, expected)


def test_the_finest_maps_can_be_taken_alone(tiny_pipeline: Any) -> None:
    def heat(*factors: int) -> np.ndarray:
        settings = watching(SETTINGS, factors=factors)
        return generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], settings)[0][1].heatmaps[0].values

    fine, coarse, both = heat(1), heat(2), heat(1, 2)
    np.testing.assert_allclose(both, (fine + coarse) / 2, rtol=1e-3)  # as many layers and heads of each
    assert np.abs(fine - coarse).max() > 1e-3
    with pytest.raises(RuntimeError, match=r"no cross-attention at factors \[8\]"):
        heat(8)


def test_the_blocks_that_count_can_be_chosen(tiny_pipeline: Any) -> None:
    def read(*blocks: str) -> ImageAttention:
        settings = watching(SETTINGS, blocks=blocks, factors=(1,), self_attention_factor=1)
        return generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], settings)[0][1]

    down, up, both = read("down"), read("up"), read("down", "up")
    num_down, num_up = (len(attention_layers(tiny_pipeline.unet, "attn2", (name,))) for name in ("down", "up"))
    assert num_down > 0 and num_up > num_down  # of each resolution; all layers of the tiny UNet have as many heads
    share = num_up / (num_down + num_up)
    expected = share * up.heatmaps[0].values + (1 - share) * down.heatmaps[0].values
    np.testing.assert_allclose(both.heatmaps[0].values, expected, rtol=1e-3)
    assert up.affinity is not None and down.affinity is not None and both.affinity is not None
    assert np.abs(up.affinity - down.affinity).max() > 1e-4


def test_everything_is_restored_after_an_exception(tiny_pipeline: Any) -> None:
    processors, before = dict(tiny_pipeline.unet.attn_processors), num_hooks(tiny_pipeline.unet)

    def stop(step: int) -> None:
        assert num_hooks(tiny_pipeline.unet) > before
        assert tiny_pipeline.unet.attn_processors == processors  # the efficient ones stay in use meanwhile
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_with_attention(tiny_pipeline, PROMPTS, [1, 2, 3], SETTINGS, on_step=stop)
    assert num_hooks(tiny_pipeline.unet) == before
    assert tiny_pipeline.unet.attn_processors == processors


def test_other_attention_processors_stay_in_use(tiny_pipeline: Any) -> None:
    expected = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], SETTINGS)[0][1].heatmaps[0].values
    tiny_pipeline.enable_attention_slicing(1)
    kinds = {type(processor) for processor in tiny_pipeline.unet.attn_processors.values()}
    heat = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], SETTINGS)[0][1].heatmaps[0].values
    assert kinds == {type(processor) for processor in tiny_pipeline.unet.attn_processors.values()}
    assert kinds == {SlicedAttnProcessor}
    np.testing.assert_allclose(heat, expected, rtol=1e-3)


def test_a_lora_counts(tiny_pipeline: Any) -> None:
    from peft import LoraConfig

    before = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], SETTINGS)[0][1].heatmaps[0].values
    config = LoraConfig(r=2, target_modules=["attn2.to_q", "attn2.to_k"], init_lora_weights=False)
    tiny_pipeline.unet.add_adapter(config)
    plain = plain_images(tiny_pipeline, PROMPTS[:1], [3], height=64, width=96)
    ((image, attention),) = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], SETTINGS)
    assert (image == plain[0]).all()
    assert np.abs(attention.heatmaps[0].values - before).max() > 1e-4


def test_the_rest_is_the_other_content_words(tiny_pipeline: Any) -> None:
    """Said as an object, each of the other words has its share of it."""
    prompt, words = prompt_of("a red car on a road, at night", "red car"), prompt_of("a road at night", "road", "night")
    images = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)]
    (attention,) = read_attention(tiny_pipeline, images, [prompt])
    assert attention.num_tokens == 77
    said = prompt_of(prompt.text, "red car", "road", "night")
    (every,) = read_attention(tiny_pipeline, images, [said])
    np.testing.assert_allclose(attention.rest, every.heatmaps[1].values + every.heatmaps[2].values, rtol=1e-3)
    (nothing,) = read_attention(tiny_pipeline, images, [words])
    assert (nothing.rest == 0).all()
    assert nothing.affinity is None


def test_bad_prompts_fail_before_anything_is_generated(tiny_pipeline: Any) -> None:
    steps: list[int] = []
    with pytest.raises(UserError, match="'tent' is not in the prompt"):
        bad = [PROMPTS[0], prompt_of("a car", "tent")]
        generate_with_attention(tiny_pipeline, bad, [1, 2], SETTINGS, on_step=steps.append)
    assert steps == []
    generate_with_attention(tiny_pipeline, PROMPTS[:1], [1], SETTINGS, on_step=steps.append)
    assert steps == [0, 1]
    with pytest.raises(ValueError, match="one seed, image and mask per prompt"):
        generate_with_attention(tiny_pipeline, PROMPTS[:2], [1], SETTINGS)


def test_a_concept_of_several_vectors_is_attended_as_one_phrase(tiny_pipeline: Any) -> None:
    tiny_pipeline.load_textual_inversion({"<it>": torch.randn(2, TEXT_WIDTH)}, token="<it>")
    prompt = prompt_of("a <it> beside a car", "<it>", "car")
    ((image, attention),) = generate_with_attention(tiny_pipeline, [prompt], [1], SETTINGS)
    assert (image == plain_images(tiny_pipeline, (prompt,), [1], height=64, width=96)[0]).all()
    assert [heatmap.phrase for heatmap in attention.heatmaps] == ["<it>", "car"]


def test_images_can_be_changed_and_repainted(tiny_pipeline: Any) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in PROMPTS]
    changed = generate_with_attention(tiny_pipeline, PROMPTS, [1, 2, 3], SETTINGS, images=images)
    assert all(
        image.shape == (64, 96, 3) and (image != old).any() for (image, _), old in zip(changed, images, strict=True)
    )
    masks = [np.zeros((64, 96), bool) for _ in PROMPTS]
    for mask in masks:
        mask[10:40, 30:80] = True
    repainted = generate_with_attention(tiny_pipeline, PROMPTS, [1, 2, 3], SETTINGS, images=images, masks=masks)
    for (image, attention), old, mask, prompt in zip(repainted, images, masks, PROMPTS, strict=True):
        assert (image[~mask] == old[~mask]).all()
        assert (image[mask] != old[mask]).any(-1).mean() > 0.9
        assert [heatmap.values.shape for heatmap in attention.heatmaps] == [(8, 12)] * len(prompt.objects)
    with pytest.raises(UserError, match="60x96 pixels: make both sides multiples of 8"):
        generate_with_attention(tiny_pipeline, PROMPTS[:1], [1], SETTINGS, images=[images[0][:60]])


def test_checkpoints_made_for_inpainting_are_recorded_too(tiny_pipeline: Any) -> None:
    """Their UNet is also given the mask and the image around it: nine channels."""
    unet = tiny_pipeline.unet
    unet.conv_in = torch.nn.Conv2d(9, unet.conv_in.out_channels, 3, padding=1)
    unet.register_to_config(in_channels=9)
    image, mask = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), np.zeros((64, 96), bool)
    mask[10:40, 30:80] = True
    repaint = {"images": [image], "masks": [mask], "strength": 1.0}
    ((repainted, attention),) = generate_with_attention(tiny_pipeline, PROMPTS[:1], [1], SETTINGS, **repaint)
    assert (repainted[~mask] == image[~mask]).all() and (repainted[mask] != image[mask]).any()
    assert attention.heatmaps[0].values.std() > 1e-4


def test_several_images_of_one_prompt_are_the_plain_pipelines(tiny_pipeline: Any) -> None:
    plain = plain_images(tiny_pipeline, PROMPTS[:2], [1, 2, 3, 4], height=64, width=96, num_images_per_prompt=2)
    prompts = [prompt for prompt in PROMPTS[:2] for _ in range(2)]
    results = generate_with_attention(tiny_pipeline, prompts, [1, 2, 3, 4], SETTINGS)
    assert all((image == expected).all() for (image, _), expected in zip(results, plain, strict=True))
    rows = [[[5, 6]], [[5, 6]]]
    with CrossAttentionCapture(tiny_pipeline.unet, rows, (8, 12)) as capture:
        plain_images(tiny_pipeline, PROMPTS[:1], [1, 2], height=64, width=96, num_images_per_prompt=2)
    for maps, (_, attention) in zip(capture.maps(), results, strict=False):
        np.testing.assert_allclose(maps[0], attention.heatmaps[0].values, rtol=1e-3)


def test_a_class_prompt_is_attended_without_changing_the_image(tiny_pipeline: Any) -> None:
    settings = watching(SETTINGS, attend="class_prompt")
    prompts = [PROMPTS[0], prompt_of("a road at night", "grand piano", "tent", "tent")]
    plain = generate_with_attention(tiny_pipeline, [PROMPTS[0], prompt_of("a road at night")], [5, 6], SETTINGS)
    results = generate_with_attention(tiny_pipeline, prompts, [5, 6], settings)
    for (image, attention), (expected, _), prompt in zip(results, plain, prompts, strict=True):
        assert (image == expected).all()
        assert [heatmap.phrase for heatmap in attention.heatmaps] == [phrase.text for phrase in prompt.objects]
        assert attention.rest.max() > 0
    piano, tent, again = (heatmap.values for heatmap in results[1][1].heatmaps)
    assert (tent == again).all() and np.abs(piano - tent).max() > 1e-4


def test_a_class_prompt_equals_a_caption_of_the_same_words(tiny_pipeline: Any) -> None:
    """Read from an image whose caption is the class prompt itself, the two ways are one."""
    images = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)]
    caption = prompt_of("red car tent night", "red car", "tent")
    (by_tokens,) = read_attention(tiny_pipeline, images, [caption])
    (by_class,) = read_attention(tiny_pipeline, images, [caption], AttentionConfig(attend="class_prompt"))
    for first, second in zip(by_tokens.heatmaps, by_class.heatmaps, strict=True):
        np.testing.assert_allclose(first.values, second.values, rtol=1e-3)
    np.testing.assert_allclose(by_tokens.rest, by_class.rest, rtol=1e-3)


def test_real_images_are_read_alike_alone_and_together(tiny_pipeline: Any) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size_hw, 3), np.uint8) for size_hw in ((64, 96), (64, 96), (70, 41))]
    together = read_attention(tiny_pipeline, images, PROMPTS)
    assert [[heatmap.values.shape for heatmap in attention.heatmaps] for attention in together] == [
        [(8, 12)],
        [(8, 12)] * 2,
        [],
    ]
    for image, prompt, attention in zip(images, PROMPTS, together, strict=True):
        (alone,) = read_attention(tiny_pipeline, [image], [prompt])
        for first, second in zip(alone.heatmaps, attention.heatmaps, strict=True):
            np.testing.assert_allclose(first.values, second.values, rtol=1e-3)
    (odd,) = read_attention(tiny_pipeline, images[2:], PROMPTS[:1])
    assert odd.heatmaps[0].values.shape == (9, 5)


def test_reading_does_not_depend_on_the_sampler_but_on_the_timesteps(tiny_pipeline: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)

    def read(**options: Any) -> np.ndarray:
        return read_attention(tiny_pipeline, [image], PROMPTS[:1], **options)[0].heatmaps[0].values

    first = read()
    tiny_pipeline.scheduler = DPMSolverMultistepScheduler.from_config(tiny_pipeline.scheduler.config)
    tiny_pipeline.scheduler.set_timesteps(4)
    np.testing.assert_array_equal(read(), first)
    assert np.abs(read(timesteps=(900,)) - first).max() > 1e-4
    assert np.abs(read(seed=1) - first).max() > 1e-5
    with pytest.raises(UserError, match=r"timesteps \[1000\] must be one or more numbers from 0 to 999"):
        read(timesteps=(1000,))


def test_tasks_share_the_models(tiny_pipeline: Any) -> None:
    assert as_task(tiny_pipeline, "txt2img") is tiny_pipeline
    for task in ("img2img", "inpaint"):
        other = as_task(tiny_pipeline, task)
        assert other.unet is tiny_pipeline.unet and other.vae is tiny_pipeline.vae
        assert type(as_task(other, "txt2img")) is type(tiny_pipeline)
    with pytest.raises(UserError, match="task 'video' is not known"):
        as_task(tiny_pipeline, "video")


@pytest.mark.parametrize(("max_timestep", "num_counted"), [(None, 4), (999, 4), (600, 3), (400, 2), (0, 1)])
def test_only_steps_of_little_noise_count(
    tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch, max_timestep: int | None, num_counted: int
) -> None:
    """Of four steps, the last in any case; the image stays, and so does what `on_step` is told."""
    counts: list[int] = []
    maps = CrossAttentionCapture.maps

    def counted(capture: CrossAttentionCapture) -> list[np.ndarray]:
        counts.append(sum(capture.counts.values()))
        return maps(capture)

    monkeypatch.setattr(CrossAttentionCapture, "maps", counted)
    settings = watching(SETTINGS.model_copy(update={"num_inference_steps": 4}), self_attention_factor=2)
    ((expected, _),) = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], settings)
    assert tiny_pipeline.scheduler.timesteps.tolist() == [751, 501, 251, 1]
    settings = watching(settings, max_timestep=max_timestep)
    steps: list[int] = []
    ((image, attention),) = generate_with_attention(tiny_pipeline, PROMPTS[:1], [3], settings, on_step=steps.append)
    np.testing.assert_array_equal(image, expected)
    assert steps == [0, 1, 2, 3] and attention.affinity is not None
    assert counts[1] * 4 == counts[0] * num_counted
