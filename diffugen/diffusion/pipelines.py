"""Loading Stable Diffusion pipelines: from a folder, a single file or the hub, always without unpickling.

What a model's files name is checked before it is imported, see `model_index` and `diffugen.model_files`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

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
from huggingface_hub import snapshot_download
from safetensors import safe_open

from diffugen.config.settings import ModelConfig
from diffugen.devices import pick_device
from diffugen.diffusion.embeddings import load_embedding
from diffugen.diffusion.lora import load_lora
from diffugen.diffusion.model_index import check_model_index
from diffugen.diffusion.model_parts import check_complete, check_parts
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.model_files import check_model_folder, loading, read_model_config

logger = logging.getLogger(__name__)

_TASKS = {
    "txt2img": AutoPipelineForText2Image,
    "img2img": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}
_SCHEDULERS = {"dpm++": DPMSolverMultistepScheduler, "ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
HALF = "fp16"
"""What diffusers calls the variant of a model whose files hold half precision."""

_REMEDY = "check the name, the files and the network, or give another model, as by --set model.path=MODEL"
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_pipeline(config: ModelConfig) -> Pipeline:
    """Load a text-to-image pipeline, its learned tokens and LoRA, onto its device, ready to run.

    All components get the configured dtype, whatever they were saved in. There is no safety checker, and the
    pipeline's own progress bar is off. Weights are read from safetensors only, classes are those of diffusers and
    transformers, so no file can run code.

    Raises:
        UserError: the model, an embedding or the LoRA does not exist, asks for code or does not fit, a part is missing,
            or the device is.
    """
    device = pick_device(config.device)
    with _no_loading_bars():
        pipe = _load_file(config) if config.path.endswith(".safetensors") else _load_folder(config)
    check_parts(pipe, config.path)
    if config.scheduler != "default":
        pipe.scheduler = _SCHEDULERS[config.scheduler].from_config(pipe.scheduler.config)
    for path in config.embeddings:
        load_embedding(pipe, path)
    if config.lora is not None:
        load_lora(pipe, config.lora)
    _cast(pipe, getattr(torch, config.dtype))
    pipe.set_progress_bar_config(disable=True)
    _LOADED_BY[pipe] = config
    if config.low_memory:
        pipe.vae.enable_slicing()
        pipe.vae.enable_tiling()
    if config.low_memory and device.type != "cpu":  # a CPU has nowhere to keep the rest
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


def settings_of(pipe: Pipeline) -> ModelConfig:
    """The settings that `load_pipeline` loaded a pipeline by, so that another process can.

    Raises:
        ValueError: it was not loaded by it.
    """
    if pipe not in _LOADED_BY:
        raise ValueError(f"{type(pipe).__name__} was not loaded by load_pipeline")
    return _LOADED_BY[pipe]


_LOADED_BY: WeakKeyDictionary[Any, ModelConfig] = WeakKeyDictionary()


def as_task(pipe: Pipeline, task: str) -> Pipeline:
    """The same models as a pipeline for "txt2img", "img2img" or "inpaint"; nothing is copied."""
    if task not in _TASKS:
        raise UserError(f"task {task!r} is not known; choose one of {', '.join(_TASKS)}")
    other = _TASKS[task].from_pipe(pipe)
    if type(other) is type(pipe):
        return pipe
    other.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return other


def _load_folder(config: ModelConfig) -> Any:
    """A pipeline folder or hub id."""
    _check_source(config.path)
    with loading(f"model.path {config.path!r}", _REMEDY):
        options: dict[str, Any] = {"use_safetensors": True}
        folder = _local(config.path)
        if folder is None:
            index = DiffusionPipeline.load_config(config.path, revision=config.revision)
            check_model_index(index, f"model.path {config.path!r}: model_index.json")  # before more of it is fetched
            folder = _download(config)
        if "safety_checker" in _checked_index(folder, "model.path"):
            options |= {"safety_checker": None, "requires_safety_checker": False}
        options |= {"dtype": getattr(torch, config.dtype), "variant": _variant(folder, config.dtype)}
        pipe = AutoPipelineForText2Image.from_pretrained(str(folder), **options)
        check_complete(pipe, folder, config.path)
    if _local(config.path) is None:
        pipe.register_to_config(_name_or_path=config.path)
    return pipe


def _local(path: str) -> Path | None:
    """The folder of that path, if it is one and no hub id."""
    folder = Path(path).expanduser()
    return folder if folder.is_dir() else None


def _checked_index(folder: Path, setting: str) -> dict[str, Any]:
    """The index of a pipeline's folder; it and all configs are checked."""
    index = read_model_config(folder / "model_index.json", setting)
    check_model_index(index, f"{setting}: {folder / 'model_index.json'}")
    check_model_folder(folder, setting)
    return index


def _download(config: ModelConfig) -> Path:
    """A hub's pipeline; in half precision its fp16 files, which are half as large, where it has them."""
    options: dict[str, Any] = {"revision": config.revision, "use_safetensors": True}
    if config.dtype == "float16":
        try:
            return Path(DiffusionPipeline.download(config.path, variant=HALF, **options))
        except (OSError, ValueError):
            logger.debug("%s has no files of the variant %s", config.path, HALF)
    return Path(DiffusionPipeline.download(config.path, **options))


def _variant(folder: Path, dtype: str) -> str | None:
    """The variant of a folder's files to read: the half-precision one where that is wanted, or the only one."""
    halves = {f".{HALF}." in path.name for path in folder.glob("*/*.safetensors")}
    return HALF if True in halves and (dtype == "float16" or False not in halves) else None


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
    with loading(f"model.path {config.path!r}", _REMEDY):
        with safe_open(path, framework="pt") as weights:
            is_xl = any(key.startswith("conditioner.") for key in weights.keys())  # noqa: SIM118 (no mapping)
        pipeline_class = StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline
        options: dict[str, Any] = {} if is_xl else {"safety_checker": None}
        if config.config is not None:
            options["config"] = str(_config_folder(config.config))
        pipe = pipeline_class.from_single_file(str(path), dtype=getattr(torch, config.dtype), **options)
    if not is_xl:
        pipe.register_to_config(requires_safety_checker=False)
    return pipe


def _config_folder(path: str) -> Path:
    """The folder that has the configs for a single file: one of the user's, or a hub's; checked."""
    folder = _local(path)
    if folder is None:
        if not _HUB_ID.fullmatch(path):
            raise UserError(
                f"model.config {path!r} does not exist; give the folder of a diffusers pipeline or a hub id"
            )
        folder = Path(snapshot_download(path, allow_patterns=["*.json", "*/*.json", "*.txt", "*/*.txt"]))
    if not (folder / "model_index.json").is_file():
        raise UserError(f"model.config {path!r} has no model_index.json; give the folder of a diffusers pipeline")
    _checked_index(folder, "model.config")
    return folder


def _cast(pipe: Any, dtype: torch.dtype) -> None:
    """Bring all weights to one dtype: transformers' models come in the one that they were saved in."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module) and any(weight.dtype != dtype for weight in part.parameters()):
            part.to(dtype)


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
