"""Loading a LoRA into a pipeline: its metadata are data, and it must change something."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open

from diffugen.errors import UserError, reason_of

logger = logging.getLogger(__name__)

_METADATA = "lora_adapter_metadata"  # where diffusers keeps peft's settings
_NUMBERS = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias"}
_PLACES = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"}
_RECORDS = {
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}
_HARMLESS = _NUMBERS | _PLACES | _RECORDS
"""Settings of peft that may be anything: numbers, places in the model, records. Others can name modules and files."""


def load_lora(pipe: Any, path: Path) -> None:
    """Load a LoRA from a .safetensors file, in any of the layouts that diffusers knows.

    Raises:
        UserError: there is no such file, it cannot be read, asks for more than weights, does not fit the model or
            changes nothing of it.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise UserError(f"model.lora {str(path)!r} is not an existing .safetensors file; give one")
    _check_file(path)
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, use_safetensors=True)
    except Exception as error:  # what a file of another kind makes of the converters is no closed list
        logger.debug("loading %s failed", path, exc_info=True)
        raise UserError(
            f"model.lora {str(path)!r} does not fit this model ({reason_of(error)}); choose another"
        ) from None
    if not any(_changes(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module)):
        raise UserError(
            f"model.lora {str(path)!r} changes no weight of this model: it is for another kind of model, or was never "
            "trained; choose another or leave it out"
        )


def _changes(model: torch.nn.Module) -> bool:
    """Whether a layer of the model has a LoRA that is not zero."""
    for layer in model.modules():
        down, up = getattr(layer, "lora_A", {}), getattr(layer, "lora_B", {})
        if any(bool(down[name].weight.any()) and bool(up[name].weight.any()) for name in down if name in up):
            return True
    return False


def _check_file(path: Path) -> None:
    """Check a file's metadata, which diffusers hands to peft as they are, and its numbers."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            broken = [key for key in file.keys() if not torch.isfinite(file.get_tensor(key)).all()]  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"model.lora {str(path)!r} is no readable safetensors file ({reason_of(error)}); fetch it again"
        ) from None
    if broken:
        raise UserError(f"model.lora {str(path)!r} has values that are no numbers in {broken[0]}; choose another")
    try:
        settings = json.loads(metadata.get(_METADATA, "{}"))
        asked = {key.split(".")[-1]: value for key, value in settings.items()}
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"model.lora {str(path)!r} has metadata that are no JSON; choose another") from None
    plain = LoraConfig()
    usual = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    for key, value in asked.items():
        if key not in _HARMLESS and value and value != usual.get(key):
            raise UserError(
                f"model.lora {str(path)!r} asks for {key}={value!r}, which is more than weights; choose another"
            )
