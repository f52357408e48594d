"""Real images in a diffusion model: encoded, noised as in training, denoised with a caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffugen.diffusion.native import native_size_hw
from diffugen.diffusion.overflow import check_finite
from diffugen.diffusion.prompt_batches import text_inputs
from diffugen.diffusion.protocol import Pipeline
from diffugen.prompts.prompt import Prompt


def encode_images(pipe: Pipeline, images: Sequence[np.ndarray]) -> Tensor:
    """Latents of uint8 RGB [H, W, 3] images of one size, as the UNet expects them, in its dtype and on its device.

    Sides that the VAE cannot halve are resized to the nearest it can.
    """
    pixels = np.stack([_fit(image, pipe.vae_scale_factor) for image in images])
    with safe_precision(pipe.vae) as vae:
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(pipe._execution_device, vae.dtype) / 127.5 - 1
        latents = vae.encode(scaled).latent_dist.mode().float()
        check_finite(latents, "the VAE's encoder", vae.dtype)
    return scaled_latents(vae, latents).to(pipe.unet.dtype)


def at_most_native(image: np.ndarray, pipe: Pipeline) -> np.ndarray:
    """The image, shrunk to about as many pixels as the model was trained on: it is lost in larger ones."""
    height, width = image.shape[:2]
    native_height, native_width = native_size_hw(pipe)
    scale = (native_height * native_width) ** 0.5 / (height * width) ** 0.5
    if scale >= 1:
        return image
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def scaled_latents(vae: Any, latents: Tensor) -> Tensor:
    """A VAE's latents in the UNet's units."""
    return (latents - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor


@contextmanager
def safe_precision(vae: Any) -> Iterator[Any]:
    """In half precision some VAEs (SDXL's) overflow; their config asks for float32."""
    dtype = vae.dtype
    upcast = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    try:
        yield vae.to(torch.float32) if upcast else vae
    finally:
        if upcast:
            vae.to(dtype)


def noise_schedule(pipe: Pipeline) -> DDPMScheduler:
    """The forward process q(x_t | x_0) that the model was trained with, whatever the pipeline's sampler."""
    return DDPMScheduler.from_config(pipe.scheduler.config)


def prediction_target(schedule: DDPMScheduler, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """What the UNet should say, in the parametrisation that it was trained with."""
    match schedule.config.prediction_type:
        case "epsilon":
            return noise
        case "v_prediction":
            return schedule.get_velocity(clean, noise, steps)
        case _:
            return clean


def prompt_conditions(pipe: Pipeline, prompts: Sequence[Prompt], latent_hw: tuple[int, int]) -> dict[str, Any]:
    """The UNet's keyword arguments for prompts that may share a batch, for latents of a size; no negative half."""
    texts = {name: value for name, value in text_inputs(pipe, prompts).items() if not name.startswith("negative_")}
    factor = pipe.vae_scale_factor
    return unet_conditions(pipe, texts, (latent_hw[0] * factor, latent_hw[1] * factor))


def unet_conditions(pipe: Pipeline, texts: Mapping[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    """The UNet's keyword arguments for texts, without a negative half.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        texts: the pipeline's arguments for them: `prompt`, or embeddings in its place.
        size_hw: the images' height and width in pixels.
    """
    device = pipe._execution_device  # where the models run, also when they are offloaded
    embeds, _, *pooled = pipe.encode_prompt(
        **{"prompt": None} | dict(texts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if getattr(pipe.unet.config, "addition_embed_type", None) != "text_time":
        return {"encoder_hidden_states": embeds}
    # SDXL is also conditioned on the pooled caption, and the size and crop: the image as it is, uncropped
    sizes = torch.tensor([[*size_hw, 0, 0, *size_hw]], dtype=embeds.dtype, device=device).expand(len(embeds), -1)
    return {
        "encoder_hidden_states": embeds,
        "added_cond_kwargs": {"text_embeds": pooled[0], "time_ids": sizes},
    }


def run_noised(
    pipe: Pipeline, latents: Tensor, prompts: Sequence[Prompt], timesteps: Sequence[int], seed: int
) -> Iterator[Tensor]:
    """Noise latents a little and denoise them once with their captions; yields the UNet's output of each timestep.

    Only the conditional half runs. Every image gets the same noise, so no result depends on the rest of the batch.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        latents: from `encode_images`.
        prompts: one per row; they may share a batch.
        timesteps: how much noise, each in [0, num_train_timesteps).
        seed: of the noise.

    Raises:
        UserError: the UNet's values are no numbers.
    """
    conditions = prompt_conditions(pipe, prompts, (latents.shape[2], latents.shape[3]))
    schedule = noise_schedule(pipe)
    generator = torch.Generator("cpu").manual_seed(seed)
    for step in timesteps:
        noise = shared_noise(latents, generator)
        noisy = schedule.add_noise(latents, noise, torch.full((len(latents),), step))
        (predicted,) = pipe.unet(noisy, torch.tensor(step, device=latents.device), **conditions, return_dict=False)
        check_finite(predicted, "the UNet", pipe.unet.dtype)
        yield predicted


def shared_noise(latents: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of noise for every row of a batch, so that no row's result depends on what else is in it."""
    return torch.randn(latents.shape[1:], generator=generator).to(latents).expand_as(latents)


def _fit(image: np.ndarray, factor: int) -> np.ndarray:
    """The image, its sides resized to the nearest multiples of `factor`."""
    height, width = (max(1, round(side / factor)) * factor for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
