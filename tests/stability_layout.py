"""A diffusers Stable Diffusion 1 pipeline as one state dict in Stability's layout, as shared checkpoints have it."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def to_stability(pipe: Any) -> dict[str, Tensor]:
    """All weights of UNet, VAE and text encoder under the names of Stability's checkpoints."""
    layers = pipe.unet.config.layers_per_block
    levels = len(pipe.vae.config.block_out_channels)
    tensors = {}
    for key, value in pipe.unet.state_dict().items():
        tensors[f"model.diffusion_model.{_unet_key(key, layers)}"] = value
    for key, value in pipe.vae.state_dict().items():
        tensors[f"first_stage_model.{_vae_key(key, levels)}"] = value
    for key, value in pipe.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {key: value.contiguous() for key, value in tensors.items()}


def _unet_key(key: str, layers: int) -> str:
    for name, other in UNET_ENDS.items():
        if key.startswith(f"{name}."):
            return key.replace(name, other, 1)
    side, rest = key.split(".", 1)
    if side == "mid_block":
        kind, index, rest = rest.split(".", 2)
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{_inside(kind, rest)}"
    block, kind, index, rest = rest.split(".", 3)
    first = int(block) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":  # all blocks of the tiny pipeline have attention, which stands before it
        return f"output_blocks.{first + layers}.2.{rest}"
    number = first + int(index)
    place = f"input_blocks.{number + 1}" if side == "down_blocks" else f"output_blocks.{number}"
    return f"{place}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    name, parameter = rest.rsplit(".", 1)
    return f"{RESNET[name]}.{parameter}"


def _vae_key(key: str, levels: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda match: f"up.{levels - 1 - int(match[1])}.block", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda match: f"up.{levels - 1 - int(match[1])}.upsample", key)
