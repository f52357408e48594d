"""Whether a pipeline has all that generating takes, and parts that belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from diffugen.diffusion.embeddings import text_parts
from diffugen.errors import UserError

_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_SCHEDULERS = [
    f"{name}Scheduler"
    for name in (
        "DDIM DDIMParallel DDPM DDPMParallel PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete "
        "KDPM2Discrete KDPM2AncestralDiscrete DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE DEISMultistep "
        "UniPCMultistep SASolver LCM TCD"
    ).split()
]
"""Samplers of what Stable Diffusion predicts, with the noise that it was trained with."""
_PROBE = "photo"  # spelled out in letters if it is no word of the model's


def check_parts(pipe: Any, path: str) -> None:
    """Check a pipeline that was just loaded, before it makes pictures of nothing.

    Raises:
        UserError: it is no Stable Diffusion, lacks a part, its tokenizer cannot spell, or its scheduler is for another
            kind of model.
    """
    model = f"model.path {path!r}"
    if not hasattr(pipe, "unet"):
        raise UserError(f"{model} is a {type(pipe).__name__}; give a Stable Diffusion 1, 2 or XL")
    missing = [name for name in ("unet", "vae", "scheduler", "text_encoder") if getattr(pipe, name, None) is None]
    if missing:
        raise UserError(f"{model} has no {missing[0]}; give a complete pipeline")
    for name, tokenizer, encoder in text_parts(pipe):
        _check_tokenizer(tokenizer, encoder, name.replace("text_encoder", "tokenizer"), model)
    _check_scheduler(pipe.scheduler, model)


def check_complete(pipe: Any, folder: Path, path: str) -> None:
    """Check that the files of a pipeline's folder have all its weights: what lacks is drawn at random, with a warning.

    Raises:
        UserError: a part has fewer tensors in its files than in the model.
    """
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        found: set[str] = set()
        for file in (folder / name).glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                found.update(tensors.keys())
        wanted = sum(1 for _ in part.parameters())
        if len(found) < wanted:
            raise UserError(
                f"model.path {path!r} has {len(found)} of the {wanted} weights of its {name}; fetch the files of its "
                f"folder {name}/ again"
            )


def _check_tokenizer(tokenizer: Any, encoder: Any, name: str, model: str) -> None:
    """One whose files are missing is loaded all the same, and reads every prompt as nothing."""
    if tokenizer is None or tokenizer.decode(tokenizer(_PROBE, add_special_tokens=False).input_ids).strip() != _PROBE:
        raise UserError(f"{model} has no {name} that knows words; fetch the files of its folder {name}/ again")
    num_rows = encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > num_rows:
        raise UserError(
            f"{model} has a {name} of {len(tokenizer)} tokens, but a text encoder of {num_rows}; give the tokenizer "
            "that belongs to it"
        )
    longest = getattr(encoder.config, "max_position_embeddings", tokenizer.model_max_length)
    if tokenizer.model_max_length > longest:
        raise UserError(
            f"{model} has a {name} that takes longer texts than its text encoder ({longest} tokens); fetch "
            f"{name}/tokenizer_config.json again, which says so"
        )


def _check_scheduler(scheduler: Any, model: str) -> None:
    config, kind = scheduler.config, type(scheduler).__name__
    prediction = config.get("prediction_type", "epsilon")
    if kind not in _SCHEDULERS or config.get("use_flow_sigmas"):
        raise UserError(
            f"{model} has the scheduler {kind}, which is not for Stable Diffusion's kind of model; put the "
            "scheduler_config.json that the model was published with into its folder scheduler/, such as "
            "DDIMScheduler's"
        )
    if prediction not in _PREDICTIONS:
        raise UserError(
            f"{model} has a scheduler for models that predict {prediction!r}, not {', '.join(_PREDICTIONS)}; give the "
            "scheduler that belongs to the model"
        )
