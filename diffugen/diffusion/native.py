"""The image size that a pipeline was made for."""

from __future__ import annotations

from diffugen.diffusion.protocol import Pipeline


def native_size_hw(pipe: Pipeline) -> tuple[int, int]:
    """Height and width in pixels of the images that a pipeline was trained on.

    That is the UNet's `sample_size` times the VAE's factor: 512 for Stable Diffusion 1.x, 768 for 2.x, 1024 for SDXL.
    """
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor
