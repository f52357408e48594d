"""A LoRA is weights, and changes some of the model's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from diffugen.diffusion.lora import load_lora
from diffugen.errors import UserError


@pytest.fixture
def saved(make_tiny_pipeline: Callable[[], Any], tmp_path: Path) -> Path:
    """A LoRA of the tiny pipeline, with peft's settings as diffusers keeps them; its scale is 3."""
    pipe = make_tiny_pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=6, target_modules=["attn2.to_k"], init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    settings = pipe.unet.peft_config["default"].to_dict() | {"target_modules": ["attn2.to_k"]}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=layers, weight_name="lora.safetensors", unet_lora_adapter_metadata=settings
    )
    return tmp_path / "lora.safetensors"


def rewritten(path: Path, change: Callable[[dict], dict], metadata: dict[str, str] | None = None) -> Path:
    out = path.with_name("changed.safetensors")
    save_file({key: value.contiguous() for key, value in change(load_file(path)).items()}, out, metadata)
    return out


def test_the_settings_of_a_lora_count(saved: Path, tiny_pipeline: Any) -> None:
    load_lora(tiny_pipeline, saved)
    layers = [layer for layer in tiny_pipeline.unet.modules() if getattr(layer, "scaling", None)]
    assert layers and all(set(layer.scaling.values()) == {3.0} for layer in layers)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: {key.replace("unet.", "transformer."): value for key, value in tensors.items()}, "no weight"),
        (lambda tensors: {key: torch.zeros_like(value) for key, value in tensors.items()}, "changes no weight"),
        (lambda tensors: {key: value * float("nan") for key, value in tensors.items()}, "no numbers"),
        (lambda tensors: {"something": torch.ones(2)}, "does not fit this model|changes no weight"),
        (lambda tensors: {key: value[..., :1] for key, value in tensors.items()}, "does not fit this model"),
    ],
)
def test_one_that_changes_nothing_is_refused(
    change: Callable[[dict], dict], sentence: str, saved: Path, tiny_pipeline: Any
) -> None:
    with pytest.raises(UserError, match=sentence):
        load_lora(tiny_pipeline, rewritten(saved, change))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"unet.megatron_config": {"a": 1}, "unet.megatron_core": "helper"}, "asks for megatron_c"),
        ({"unet.auto_mapping": {"parent_library": "helper"}}, "asks for auto_mapping"),
        ({"unet.init_lora_weights": "eva", "unet.eva_config": {"rho": 2}}, "asks for"),
        ("{", "no JSON"),
        ([1], "no JSON"),
    ],
)
def test_its_settings_name_nothing_to_import(settings: Any, sentence: str, saved: Path, tiny_pipeline: Any) -> None:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    changed = rewritten(saved, dict, {"lora_adapter_metadata": text})
    with pytest.raises(UserError, match=sentence):
        load_lora(tiny_pipeline, changed)
