"""Heatmaps of a prompt's objects: of an image while it is generated, or of a real image with its caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffugen.attention.decoder import check_decoder, with_decoder
from diffugen.attention.heatmaps import ImageAttention
from diffugen.attention.model_defaults import with_model_defaults
from diffugen.attention.presence import with_presence
from diffugen.attention.recorder import Recorder, recording
from diffugen.batching import map_groups
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.diffusion.denoising import encode_images, run_noised
from diffugen.diffusion.overflow import checked_decoder
from diffugen.diffusion.pipelines import as_task
from diffugen.diffusion.prompt_batches import batchable_groups, text_inputs
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import check_prompt
from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt


def generate_with_attention(
    pipe: Pipeline,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    settings: GenerateConfig,
    *,
    on_step: Callable[[int], None] | None = None,
    images: Sequence[np.ndarray] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    strength: float = 0.6,
) -> list[tuple[np.ndarray, ImageAttention]]:
    """Generate one batch of images together with the heatmaps of their object phrases.

    Prompts that are longer than the text encoder reads, or have weights, are encoded by compel; others exactly as
    the plain pipeline does it. The two kinds, and prompts of different lengths, run one after the other, so that
    no image depends on what else is in its batch.

    Args:
        pipe: a Stable Diffusion or SDXL text-to-image pipeline.
        prompts: one per image; for several images of one prompt, repeat it.
        seeds: one per image; each image has its own generator on the CPU.
        settings: size, steps, guidance, and what of the attention is kept. With `images` the size is theirs.
        on_step: called after every denoising step with its index.
        images: uint8 RGB [H, W, 3] to start from (img2img), all of one size, the sides multiples of the VAE's
            factor.
        masks: bool [H, W], with `images`: repaint only there (inpaint); all other pixels are returned
            untouched.
        strength: how far `images` are noised, in (0, 1].

    Returns:
        Per prompt: the image, uint8 RGB [H, W, 3], exactly the one that the plain pipeline makes of that
        batch; and its attention, with one Heatmap per entry of `prompt.objects`.

    Raises:
        UserError: before anything is generated: a phrase is not in its prompt, or sizes do not fit; afterwards: an
            image has values that are no numbers, so that none of the batch is returned.
    """
    counts = [len(values) for values in (seeds, images, masks) if values is not None]
    if counts != [len(prompts)] * len(counts):
        raise ValueError(f"one seed, image and mask per prompt: {len(prompts)} prompts, but {counts}")
    for prompt in prompts:
        check_prompt(pipe, prompt, settings.attention.attend)
    if settings.attention.decoder is not None:
        check_decoder(settings.attention.decoder, pipe)
    groups = batchable_groups(pipe, prompts, settings.attention)
    if len(groups) > 1:
        results: dict[int, tuple[np.ndarray, ImageAttention]] = {}
        for group in groups:
            inputs = {"images": _pick(images, group), "masks": _pick(masks, group), "strength": strength}
            part = (pipe, _pick(prompts, group), _pick(seeds, group), settings)
            results |= zip(group, generate_with_attention(*part, on_step=on_step, **inputs), strict=True)
        return [results[index] for index in range(len(prompts))]
    settings = with_model_defaults(settings, pipe)
    size_hw = settings.size_hw if images is None else _common_size(images, pipe.vae_scale_factor)
    task, inputs = _task_inputs(size_hw, images, masks, strength)
    latent_hw = size_hw[0] // pipe.vae_scale_factor, size_hw[1] // pipe.vae_scale_factor
    with recording(pipe, prompts, latent_hw, settings.attention) as recorder, checked_decoder(pipe):
        output = as_task(pipe, task)(
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            callback_on_step_end=_step_callback(on_step, recorder, settings.attention.max_timestep),
            **text_inputs(pipe, prompts),
            **inputs,
        )
    pixels = [np.array(image.convert("RGB")) for image in output.images]
    if images is not None and masks is not None:  # the VAE changes every pixel a little
        triples = zip(pixels, images, masks, strict=True)
        pixels = [np.where(mask[..., None], new, old) for new, old, mask in triples]
    attention = _completed(
        pipe, pixels, prompts, recorder.attention(), settings.attention, seed=0, batch_size=len(prompts)
    )
    return list(zip(pixels, attention, strict=True))


@torch.no_grad()
def read_attention(
    pipe: Pipeline,
    images: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    settings: AttentionConfig = AttentionConfig(),  # noqa: B008 (immutable)
    *,
    timesteps: Sequence[int] = (100, 200, 300),
    seed: int = 0,
    batch_size: int = 8,
) -> list[ImageAttention]:
    """Attention to a real image's caption: noise the image a little, run the UNet once, look where it looks.

    The idea is DiffSegmenter's (Wang et al. 2023), here with several timesteps averaged. Only the conditional
    half is run. Every image gets the same noise, so its heatmaps do not depend on what else is in the batch.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        images: uint8 RGB [H, W, 3] of any sizes; sides that the VAE cannot halve are resized to the nearest
            it can.
        prompts: the caption of each image, with the objects to look for.
        settings: what of the attention counts and is kept.
        timesteps: how much noise, each in [0, num_train_timesteps).
        seed: of the noise.
        batch_size: images of one size that go through the model together; halved when the GPU runs out of memory.

    Returns:
        Per image its attention, with one Heatmap per entry of `prompt.objects`, at the size of its latents.

    Raises:
        UserError: a phrase is not in its caption, a timestep is out of range, or the model's values are no numbers.
    """
    if len(images) != len(prompts):
        raise ValueError(f"one prompt per image: {len(images)} images, {len(prompts)} prompts")
    limit = pipe.scheduler.config.num_train_timesteps
    if not timesteps or not all(0 <= step < limit for step in timesteps):
        raise UserError(f"timesteps {list(timesteps)} must be one or more numbers from 0 to {limit - 1}")
    for prompt in prompts:
        check_prompt(pipe, prompt, settings.attend)
    prompts = [replace(prompt, negative_text="") for prompt in prompts]  # the negative half does not run

    def read(part: Sequence[int]) -> list[ImageAttention]:
        return _read_batch(pipe, _pick(images, part), _pick(prompts, part), settings, timesteps, seed)

    found = map_groups(batchable_groups(pipe, prompts, settings, [image.shape for image in images]), batch_size, read)
    return _completed(pipe, images, prompts, found, settings, seed=seed, batch_size=batch_size)


def _read_batch(
    pipe: Pipeline,
    images: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    settings: AttentionConfig,
    timesteps: Sequence[int],
    seed: int,
) -> list[ImageAttention]:
    """`read_attention` for images of one size and prompts of one length."""
    latents = encode_images(pipe, images)
    with recording(pipe, prompts, (latents.shape[2], latents.shape[3]), settings) as recorder:
        for _ in run_noised(pipe, latents, prompts, timesteps, seed):
            pass
    return recorder.attention()


def _completed(
    pipe: Pipeline,
    images: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    attention: list[ImageAttention],
    settings: AttentionConfig,
    **options: Any,
) -> list[ImageAttention]:
    """The attention of finished images, with what the settings ask for besides: presence, and the decoder's heat."""
    if settings.presence:
        attention = with_presence(pipe, images, prompts, attention, **options)
    if settings.decoder is not None:
        attention = with_decoder(pipe, images, prompts, attention, settings.decoder, **options)
    return attention


def _pick(values: Sequence[Any] | None, indices: Sequence[int]) -> Any:
    return None if values is None else [values[index] for index in indices]


def _task_inputs(
    size_hw: tuple[int, int],
    images: Sequence[np.ndarray] | None,
    masks: Sequence[np.ndarray] | None,
    strength: float,
) -> tuple[str, dict[str, Any]]:
    """The task and the arguments that only it has."""
    size = {"height": size_hw[0], "width": size_hw[1]}
    if images is None:
        return "txt2img", size
    start = {"image": [Image.fromarray(image) for image in images], "strength": strength}
    if masks is None:
        return "img2img", start
    return "inpaint", {
        **size,
        **start,
        "mask_image": [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks],
    }


def _step_callback(
    on_step: Callable[[int], None] | None, recorder: Recorder, max_timestep: int | None
) -> Callable[..., dict[str, Any]] | None:
    """What happens after a step: `on_step` is called, and recording is paused or resumed for the next one."""
    if on_step is None and max_timestep is None:
        return None

    def callback(pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if max_timestep is not None:
            _record_from(pipe, recorder, step, max_timestep)
        if on_step is not None:
            on_step(step)
        return tensors

    return callback


def _record_from(pipe: Pipeline, recorder: Recorder, step: int, max_timestep: int) -> None:
    """Let only steps of at most this timestep count, or the last one if there is none.

    The first step is recorded in any case, and discarded if a later one counts.
    """
    if step == 0:  # read once: it may be on a GPU, which then waits
        recorder.timesteps = pipe.scheduler.timesteps[-pipe.num_timesteps :].tolist()
        if len(recorder.timesteps) > 1 and recorder.timesteps[0] > max_timestep:
            recorder.reset()
    following = recorder.timesteps[step + 1 :]
    recorder.pause(len(following) > 1 and following[0] > max_timestep)


def _common_size(images: Sequence[np.ndarray], factor: int) -> tuple[int, int]:
    """Height and width of a batch of images, which must be alike and fit the VAE."""
    sizes = {image.shape[:2] for image in images}
    height, width = next(iter(sizes))
    if len(sizes) > 1:
        raise UserError(f"images of one batch have different sizes {sorted(sizes)}; batch images of one size")
    if height % factor or width % factor:
        raise UserError(f"image of {height}x{width} pixels: make both sides multiples of {factor} to start from it")
    return height, width
