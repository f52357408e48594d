"""Loading Stable Diffusion pipelines: from a folder, a single file or the hub, always without unpickling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError, safe_open

from diffugen.config.settings import ModelConfig
from diffugen.diffusion.embeddings import load_embedding
from diffugen.errors import UserError

_TASKS = {
    "txt2img": AutoPipelineForText2Image,
    "img2img": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}
_SCHEDULERS = {"dpm++": DPMSolverMultistepScheduler, "ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_pipeline(config: ModelConfig) -> Any:
    """Load a text-to-image pipeline, its learned tokens and LoRA, onto its device, ready to run.

    All components get the configured dtype, whatever they were saved in. There is no safety checker, and the
    pipeline's own progress bar is off. Weights are read from safetensors only, so no file can run code.

    Raises:
        UserError: the model, an embedding or the LoRA does not exist or does not fit, or the device is
            missing.
    """
    device = pick_device(config.device)
    if config.cpu_offload and device.type == "cpu":
        raise UserError("model.cpu_offload is on, but model.device is 'cpu'; turn it off or choose a GPU")
    with _no_loading_bars():
        pipe = _load_file(config) if config.path.endswith(".safetensors") else _load_folder(config)
    if not hasattr(pipe, "unet"):
        raise UserError(f"model.path {config.path!r} is a {type(pipe).__name__}; give a Stable Diffusion 1, 2 or XL")
    if config.scheduler != "default":
        pipe.scheduler = _SCHEDULERS[config.scheduler].from_config(pipe.scheduler.config)
    for path in config.embeddings:
        load_embedding(pipe, path)
    if config.lora is not None:
        _load_lora(pipe, config.lora)
    _cast(pipe, getattr(torch, config.dtype))
    if config.vae_slicing:
        pipe.vae.enable_slicing()
    if config.vae_tiling:
        pipe.vae.enable_tiling()
    pipe.set_progress_bar_config(disable=True)
    if config.cpu_offload:
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


def as_task(pipe: Any, task: str) -> Any:
    """The same models as a pipeline for "txt2img", "img2img" or "inpaint"; nothing is copied."""
    if task not in _TASKS:
        raise UserError(f"task {task!r} is not known; choose one of {', '.join(_TASKS)}")
    other = _TASKS[task].from_pipe(pipe)
    if type(other) is type(pipe):
        return pipe
    other.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return other


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first GPU, else Apple's, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"model.device {name!r} is not a device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from None
    num_devices = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(_has_mps())}.get(device.type, 0)
    if (device.index or 0) >= num_devices:
        raise UserError(f"model.device {name!r} is not on this machine; use 'auto' for what there is")
    return device


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _load_folder(config: ModelConfig) -> Any:
    """A pipeline folder or hub id."""
    _check_source(config.path)
    source = str(Path(config.path).expanduser()) if Path(config.path).expanduser().is_dir() else config.path
    options: dict[str, Any] = {"revision": config.revision, "variant": config.variant}
    try:
        index = DiffusionPipeline.load_config(source, revision=config.revision)
        if "safety_checker" in index:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        dtype = getattr(torch, config.dtype)
        return AutoPipelineForText2Image.from_pretrained(source, dtype=dtype, use_safetensors=True, **options)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _unreadable(config.path, error) from None


def _check_source(path: str) -> None:
    """Tell a folder or hub id from a mistake, before anything is fetched."""
    local = Path(path).expanduser()
    if local.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise UserError(
            f"model.path {path!r} is a pickled checkpoint, which could run code; convert it to .safetensors"
        )
    if local.is_dir():
        if not (local / "model_index.json").is_file():
            raise UserError(f"model.path {path!r} has no model_index.json; give the folder of a diffusers pipeline")
    elif local.exists():
        raise UserError(f"model.path {path!r} is no pipeline folder and no .safetensors file; give one of these")
    elif not _HUB_ID.fullmatch(path):
        raise UserError(f"model.path {path!r} does not exist; give a pipeline folder, a .safetensors file or a hub id")


def _load_file(config: ModelConfig) -> Any:
    """A single-file checkpoint in Stability's layout."""
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise UserError(
            f"model.path {config.path!r} does not exist; give a pipeline folder, a .safetensors file or a hub id"
        )
    try:
        with safe_open(path, framework="pt") as weights:
            is_xl = any(key.startswith("conditioner.") for key in weights.keys())  # noqa: SIM118 (no mapping)
        pipeline_class = StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline
        options: dict[str, Any] = {} if is_xl else {"safety_checker": None}
        if config.config is not None:
            local = Path(config.config).expanduser()
            options["config"] = str(local) if local.is_dir() else config.config
        pipe = pipeline_class.from_single_file(str(path), dtype=getattr(torch, config.dtype), **options)
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError, SingleFileComponentError) as error:
        raise _unreadable(config.path, error) from None
    if not is_xl:
        pipe.register_to_config(requires_safety_checker=False)
    return pipe


def _cast(pipe: Any, dtype: torch.dtype) -> None:
    """Bring all weights to one dtype: transformers' models come in the one that they were saved in."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module) and any(weight.dtype != dtype for weight in part.parameters()):
            part.to(dtype)


def _unreadable(path: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return UserError(
        f"model.path {path!r} cannot be loaded ({reason}); check the name, the files and the network, or give another "
        "model, as by --set model.path=MODEL"
    )


def _load_lora(pipe: Any, path: Path) -> None:
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise UserError(f"model.lora {str(path)!r} is not an existing .safetensors file; give one")
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, use_safetensors=True)
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"model.lora {str(path)!r} does not fit this model ({reason}); choose another") from None


@contextmanager
def _no_loading_bars() -> Iterator[None]:
    """Loading takes a moment; the command line has its own progress bars."""
    libraries = [library.utils.logging for library in (diffusers, transformers)]
    enabled = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, was_enabled in zip(libraries, enabled, strict=True):
            if was_enabled:
                library.enable_progress_bar()
