"""The part of a diffusers pipeline that diffugen relies on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # importing torch takes seconds
    import torch


class Pipeline(Protocol):
    """A text-to-image pipeline of diffusers: Stable Diffusion or SDXL.

    SDXL has a second tokenizer and text encoder (`tokenizer_2`, `text_encoder_2`), see `embeddings.text_parts`.

    Attributes:
        unet: the denoiser, with `config` and hookable attention layers.
        vae: the autoencoder between images and latents.
        scheduler: the sampler, with the noise schedule of the model's training in its `config`.
        tokenizer, text_encoder: of the prompts.
        vae_scale_factor: image side over latent side.
        num_timesteps: denoising steps of the current call.
        components: all models by name.
        config: the pipeline's own settings.
        name_or_path: where the pipeline was loaded from.
    """

    unet: Any
    vae: Any
    scheduler: Any
    tokenizer: Any
    text_encoder: Any
    vae_scale_factor: int

    @property
    def num_timesteps(self) -> int: ...

    @property
    def components(self) -> Mapping[str, Any]: ...

    @property
    def config(self) -> Any: ...

    @property
    def name_or_path(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def _execution_device(self) -> torch.device:
        """Where the models run; unlike `device` right also while they are offloaded to the CPU."""

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        """Generate images; returns an object with `images`, PIL images."""

    def encode_prompt(self, **inputs: Any) -> Any:
        """Text embeddings as the denoiser takes them, without and with the negative prompt's."""

    def to(self, *arguments: Any, **options: Any) -> Any:
        """Move all models to a device or dtype."""

    def load_textual_inversion(self, *arguments: Any, **options: Any) -> None:
        """Add learned tokens to a tokenizer and text encoder."""

    def maybe_convert_prompt(self, prompt: str, tokenizer: Any) -> str:
        """A prompt in which learned tokens of several vectors are expanded."""

    def get_list_adapters(self) -> Mapping[str, list[str]]:
        """The names of LoRAs by model."""

    def fuse_lora(self, *arguments: Any, **options: Any) -> Any:
        """Add LoRAs to the weights."""

    def unload_lora_weights(self) -> None:
        """Remove LoRAs that are not part of the weights."""

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the bar over denoising steps."""
