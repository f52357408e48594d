"""A UNet's features of finished images: what a few drawn masks teach a decoder to label by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffugen.batching import map_groups
from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.denoising import encode_images, run_noised
from diffugen.diffusion.prompt_batches import batchable_groups
from diffugen.diffusion.protocol import Pipeline
from diffugen.prompts.prompt import Prompt

TIMESTEPS = (50, 150, 300)
"""How much noise, out of a thousand steps: with little, features keep the outline."""


def feature_layers(unet: nn.Module) -> list[Any]:
    """The residual blocks on the UNet's way up, the coarsest first."""
    return [layer for block in unet.up_blocks for layer in block.resnets]


def num_features(unet: nn.Module) -> int:
    """How many channels the features of a UNet have."""
    return sum(layer.out_channels for layer in feature_layers(unet))


@torch.no_grad()
def read_features(
    pipe: Pipeline, images: Sequence[np.ndarray], prompts: Sequence[Prompt], *, seed: int = 0, batch_size: int = 4
) -> list[Tensor]:
    """Features of images: each is noised a little and denoised once with its caption, at three noise levels.

    Generators know where the parts of things are (Zhang et al. 2021, "DatasetGAN"; Baranchuk et al. 2022,
    "Label-Efficient Semantic Segmentation with Diffusion Models").

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        images: uint8 RGB [H, W, 3] of any sizes.
        prompts: the caption of each.
        seed: of the noise, which all images share.
        batch_size: images of one size that go through the model together; halved when the GPU runs out of memory.

    Returns:
        Per image float32 [channels, h, w] at the size of its latents, on the model's device: the outputs of the
        residual blocks on the way up, each the mean over the noise levels.
    """
    timesteps = [step * pipe.scheduler.config.num_train_timesteps // 1000 for step in TIMESTEPS]

    def read(part: Sequence[int]) -> Sequence[Tensor]:
        latents = encode_images(pipe, [images[index] for index in part])
        with _capturing(pipe.unet, (latents.shape[2], latents.shape[3])) as sums:
            for _ in run_noised(pipe, latents, [prompts[index] for index in part], timesteps, seed):
                pass
        return torch.cat([value / len(timesteps) for value in sums], dim=1).unbind()

    shapes = [image.shape for image in images]
    return map_groups(batchable_groups(pipe, prompts, AttentionConfig(), shapes), batch_size, read)


@contextmanager
def _capturing(unet: nn.Module, latent_hw: tuple[int, int]) -> Iterator[list[Tensor]]:
    """Sums of the layers' outputs over the passes in the block: [rows, channels, h, w] each, of the latents' size."""
    layers = feature_layers(unet)
    sums: list[Tensor] = []

    def hook(number: int) -> Any:
        def add(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            scaled = F.interpolate(output.float(), latent_hw, mode="bilinear", align_corners=False)
            if number < len(sums):
                sums[number] += scaled
            else:
                sums.append(scaled)

        return add

    with ExitStack() as hooks:
        for number, layer in enumerate(layers):
            hooks.callback(layer.register_forward_hook(hook(number)).remove)
        yield sums
