"""The same engine on SDXL: two text encoders, pooled conditions, the image's size as a condition."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import TEXT_WIDTH, TEXT_WIDTH_2, build_sdxl_pipeline
from watching import watching

from diffugen.attention.cross_attention import CrossAttentionCapture
from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.config.settings import AttentionConfig, GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import as_task, load_pipeline
from diffugen.diffusion.prompt_encoding import encode_prompts, parse_weights
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt

SETTINGS = GenerateConfig(height=64, width=96, num_inference_steps=2, guidance_scale=4)


def prompt_of(text: str, *phrases: str, negative: str = "") -> Prompt:
    return Prompt(text, tuple(ObjectPhrase(phrase, phrase) for phrase in phrases), negative_text=negative)


PROMPTS = [prompt_of("a photo of a red car on a road", "red car"), prompt_of("a grand piano beside a tent", "tent")]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build_sdxl_pipeline()


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    pipe.save_pretrained(path)
    return path


def random_images(num: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(num)]


def plain_images(pipe: Any, task: str = "txt2img", **inputs: Any) -> list[np.ndarray]:
    images = as_task(pipe, task)(
        prompt=[prompt.text for prompt in PROMPTS],
        num_inference_steps=2,
        guidance_scale=4,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
        output_type="np",
        **inputs,
    ).images
    return [(image * 255).round().astype(np.uint8) for image in images]


def test_the_image_is_the_plain_pipelines(pipe: Any) -> None:
    plain = plain_images(pipe, height=64, width=96)
    results = generate_with_attention(pipe, PROMPTS, [1, 2], SETTINGS)
    for (image, attention), expected in zip(results, plain, strict=True):
        np.testing.assert_array_equal(image, expected)
        assert attention.heatmaps[0].values.shape == (8, 12)
        assert attention.heatmaps[0].values.std() > 1e-5


def test_images_are_changed_and_repainted_by_the_xl_pipelines(pipe: Any) -> None:
    images = random_images(2)
    inputs = {"image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255, "strength": 0.9}
    changed = generate_with_attention(pipe, PROMPTS, [1, 2], SETTINGS, images=images, strength=0.9)
    for (image, _), expected in zip(changed, plain_images(pipe, "img2img", **inputs), strict=True):
        np.testing.assert_allclose(image, expected, atol=1)
    masks = [np.zeros((64, 96), bool) for _ in images]
    for mask in masks:
        mask[10:40, 30:80] = True
    repainted = generate_with_attention(pipe, PROMPTS, [1, 2], SETTINGS, images=images, masks=masks, strength=0.9)
    for (image, attention), old, mask in zip(repainted, images, masks, strict=True):
        assert (image[~mask] == old[~mask]).all()
        assert (image[mask] != old[mask]).any(-1).mean() > 0.9
        assert attention.heatmaps[0].values.shape == (8, 12)


def test_every_layer_of_both_levels_counts(pipe: Any) -> None:
    conditions = {"text_embeds": torch.randn(2, 16), "time_ids": torch.ones(2, 6)}
    rows = [[[2, 3]], [[5]]]
    with CrossAttentionCapture(pipe.unet, rows, (12, 10)) as capture, torch.no_grad():
        text = torch.randn(2, 77, TEXT_WIDTH + TEXT_WIDTH_2)
        pipe.unet(torch.randn(2, 4, 12, 10), 10, text, added_cond_kwargs=conditions)
    assert capture.counts == {2: 2 * 3, 4: 4 * 2 * 3}  # heads x layers: factor 1 has no attention


def test_embeddings_are_the_pipelines(pipe: Any) -> None:
    texts = [prompt.text for prompt in PROMPTS]
    expected, _, pooled, _ = pipe.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False)
    embeds, own_pooled = encode_prompts(pipe, [parse_weights(text) for text in texts])
    torch.testing.assert_close(embeds, expected.detach())
    torch.testing.assert_close(own_pooled, pooled.detach())


def test_weighted_and_long_prompts_do_not_change_others(pipe: Any) -> None:
    prompts = [
        PROMPTS[0],
        prompt_of("a photo of a (red car:1.4) on a road", "red car"),
        prompt_of("a house " * 40 + "and a tent", "tent"),
        prompt_of("a photo of a red car on a road", "red car", negative="rain"),
    ]
    settings = SETTINGS.model_copy(update={"num_inference_steps": 1})
    together = generate_with_attention(pipe, prompts, [1, 1, 1, 1], settings)
    for prompt, (image, attention) in zip(prompts, together, strict=True):
        ((alone, expected),) = generate_with_attention(pipe, [prompt], [1], settings)
        assert np.abs(image.astype(int) - alone).max() <= 1
        np.testing.assert_allclose(attention.heatmaps[0].values, expected.heatmaps[0].values, rtol=1e-3, atol=1e-6)
    assert [attention.num_tokens for _, attention in together] == [77, 77, 154, 77]
    assert (together[0][0] != together[1][0]).any() and (together[0][0] != together[3][0]).any()


def test_without_weights_compel_gives_the_same_image(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = generate_with_attention(pipe, PROMPTS, [1, 2], SETTINGS)
    monkeypatch.setattr("diffugen.diffusion.prompt_batches.needs_compel", lambda pipe, text: True)
    for (image, _), (expected, _) in zip(generate_with_attention(pipe, PROMPTS, [1, 2], SETTINGS), plain, strict=True):
        assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("attend", ["tokens", "class_prompt"])
def test_real_images_are_read(pipe: Any, attend: str) -> None:
    settings = AttentionConfig(attend=attend, self_attention_factor=2)
    read = read_attention(pipe, random_images(2), PROMPTS, settings)
    for attention in read:
        assert attention.heatmaps[0].values.shape == (8, 12)
        assert attention.affinity is not None and attention.affinity.shape == (4, 6, 4, 6)


def test_the_presence_of_objects_is_measured(pipe: Any) -> None:
    """Weighted prompts too, which compel encodes: what is not weighted is not changed by what is in the batch."""
    weighted = prompt_of("a (red car:1.4) on a road", "red car")
    read = read_attention(pipe, random_images(3), [*PROMPTS, weighted], AttentionConfig(presence=True))
    alone = read_attention(pipe, random_images(1), PROMPTS[:1], AttentionConfig(presence=True))
    presence = [one.presence for one in read]
    assert all(values is not None and np.isfinite(values).all() and values.shape == (1,) for values in presence)
    np.testing.assert_allclose(presence[0], alone[0].presence, rtol=0.05)  # rounding differs


def test_a_folder_and_embeddings_of_both_encoders_load(folder: Path, tmp_path: Path) -> None:
    vectors = {"clip_l": torch.ones(2, TEXT_WIDTH), "clip_g": torch.full((2, TEXT_WIDTH_2), 2.0)}
    save_file(vectors, tmp_path / "harp.safetensors")
    config = ModelConfig(path=str(folder), device="cpu", embeddings=(tmp_path / "harp.safetensors",))
    loaded = load_pipeline(config)
    assert loaded.tokenizer.tokenize("a harp") == loaded.tokenizer_2.tokenize("a harp") == ["a</w>", "harp"]
    for encoder, value in ((loaded.text_encoder, 1), (loaded.text_encoder_2, 2)):
        assert (encoder.get_input_embeddings().weight[-2:] == value).all()
    prompt = prompt_of("a harp on a road", "harp", "road")
    ((_, attention),) = generate_with_attention(loaded, [prompt], [1], SETTINGS)
    assert len(attention.heatmaps) == 2


def test_embeddings_that_do_not_fit_are_refused(pipe: Any, folder: Path, tmp_path: Path) -> None:
    save_file({"<harp>": torch.ones(2, TEXT_WIDTH)}, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match="clip_l and clip_g"):
        load_pipeline(ModelConfig(path=str(folder), device="cpu", embeddings=(tmp_path / "one.safetensors",)))
    wide = {"clip_l": torch.ones(2, TEXT_WIDTH), "clip_g": torch.ones(2, TEXT_WIDTH)}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match=f"has {TEXT_WIDTH} dimensions, .* has {TEXT_WIDTH_2}"):
        load_pipeline(ModelConfig(path=str(folder), device="cpu", embeddings=(tmp_path / "wide.safetensors",)))


def test_hooks_leave_nothing_behind(pipe: Any) -> None:
    unet = copy.deepcopy(pipe.unet)
    generate_with_attention(pipe, PROMPTS, [1, 2], watching(SETTINGS, self_attention_factor=4))
    assert all(not module._forward_hooks for module in pipe.unet.modules())
    assert pipe.unet.attn_processors.keys() == unet.attn_processors.keys()
