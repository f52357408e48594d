"""Cross-attention LoRA trained with the token (peft), and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

from diffugen.files import atomic_path

_CROSS_ATTENTION = ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]


def add_lora(unet: Any, rank: int, seed: int) -> list[nn.Parameter]:
    """Add a LoRA, zero at first, to the UNet's cross-attention; returns its parameters (float32)."""
    # alpha = rank means a scale of 1, which is what readers of the file take where no alpha is given.
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_CROSS_ATTENTION)
    with torch.random.fork_rng():  # peft draws the initial values from the global generator
        torch.manual_seed(seed)
        unet.add_adapter(config)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def save_lora(unet: Any, path: Path) -> None:
    """Write the LoRA to a `.safetensors` file that `load_lora_weights` reads, atomically."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    with atomic_path(path) as temporary:
        StableDiffusionPipeline.save_lora_weights(
            str(temporary.parent), unet_lora_layers=layers, weight_name=temporary.name
        )
