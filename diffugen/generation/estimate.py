"""What generating will take, before it starts: time, disk and GPU memory. Estimates, and what they rest on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.config.settings import GenerateConfig, ModelConfig
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt

if TYPE_CHECKING:
    from diffugen.generation.plan import Plan

PNG_BYTES_PER_PIXEL = 1.8
"""Mean of 20 photos of COCO written as PNG (nine in ten of them between 1.2 and 2.5)."""

HEAT_BYTES, AFFINITY_BYTES = 4, 2
"""float32 and float16, as if compression gained nothing."""

NUM_TRIAL_STEPS = 3

# Modules that import torch are imported inside functions: without a model there is nothing to run.


@dataclass(frozen=True)
class Trial:
    """What a few denoising steps of one batch took.

    Attributes:
        batch_size: images in the batch.
        step_seconds: one denoising step of the batch.
        other_seconds: reading the prompts, decoding, and whatever comes once per batch.
        peak_bytes: most GPU memory in use, weights included; None without a GPU.
        device: where it ran.
    """

    batch_size: int
    step_seconds: float
    other_seconds: float
    peak_bytes: int | None
    device: str

    def total_seconds(self, num_images: int, num_steps: int) -> float:
        """Time for so many images of so many steps each."""
        return num_images / self.batch_size * (self.other_seconds + num_steps * self.step_seconds)


def estimate(config: ModelConfig, settings: GenerateConfig, plan: Plan) -> list[str]:
    """Lines that say what generating will take.

    Where the model is on this machine it is loaded and runs a few denoising steps of the first batch, whose images
    are thrown away. It is not fetched for that.

    Args:
        config: the model.
        settings: size, steps, batch size.
        plan: the samples; a model that is here checks their prompts. Variations are assumed to be of one size.

    Raises:
        UserError: a prompt does not fit the model.
    """
    prompts = plan.prompts
    if not is_here(config.path, config.revision):
        reason = f"model.path {config.path!r} is not on this machine"
        return [*_disk(settings, prompts), f"time and memory: unknown, as {reason}"]

    from diffugen.attention.model_defaults import warn_of_foreign_size, with_model_defaults
    from diffugen.diffusion.pipelines import load_pipeline
    from diffugen.diffusion.tokens import check_prompt

    try:
        pipe = load_pipeline(config)
    except UserError as error:
        return [*_disk(settings, prompts), f"time and memory: unknown, as {error}"]
    settings = with_model_defaults(settings, pipe)
    warn_of_foreign_size(settings, pipe)
    for prompt in prompts:
        check_prompt(pipe, prompt, settings.attention.attend)
    return measure(pipe, config, settings, plan)


def measure(pipe: Pipeline, config: ModelConfig, settings: GenerateConfig, plan: Plan, times: int = 1) -> list[str]:
    """`estimate` with a pipeline that is loaded, its prompts checked and its settings complete.

    Args:
        pipe, config: the model.
        settings: size, steps, batch size.
        plan: the samples.
        times: how often as many samples are generated.
    """
    prompts = plan.prompts
    trial = run_trial(pipe, plan, settings)
    first = next(iter(plan.variations.values()), None)
    num_steps = max(1, int(settings.num_inference_steps * (1 if first is None else first.strength)))
    seconds = trial.total_seconds(times * len(prompts), num_steps)
    lines = [
        *_disk(settings, prompts, times),
        f"time: about {_duration(seconds)} on {trial.device} (measured: {trial.step_seconds:.2g} s per denoising step "
        f"of {trial.batch_size} image{'s' * (trial.batch_size > 1)}, {trial.other_seconds:.2g} s for the rest)",
    ]
    if trial.peak_bytes is not None:
        return [*lines, f"GPU memory: {_size(trial.peak_bytes)} at {trial.batch_size} images at a time (measured)"]
    weights, activations = memory_bytes(pipe, config, settings)
    return [
        *lines,
        f"GPU memory: about {_size(weights + activations)} at {settings.batch_size} images at a time (there is no GPU "
        f"here: {_size(weights)} of weights, {_size(activations)} of activations, estimated by the layers' widths)",
    ]


def _disk(settings: GenerateConfig, prompts: Sequence[Prompt], times: int = 1) -> list[str]:
    if settings.height is None or settings.width is None:
        return ["disk: unknown, as the size is the model's own"]
    size = _size(times * disk_bytes(settings, prompts))
    return [f"disk: about {size} (PNG at {PNG_BYTES_PER_PIXEL} bytes per pixel, and attention maps)"]


def disk_bytes(settings: GenerateConfig, prompts: Sequence[Prompt]) -> float:
    """Bytes of the images and their attention, at latents of an eighth of the sides; a dataset links its images."""
    num_pixels = math.prod(settings.size_hw)
    num_maps = sum(len(prompt.objects) + 1 for prompt in prompts)
    heat = num_maps * num_pixels / 64 * HEAT_BYTES
    if factor := settings.attention.self_attention_factor:
        heat += len(prompts) * (num_pixels / 64 / factor**2) ** 2 * AFFINITY_BYTES
    return len(prompts) * num_pixels * PNG_BYTES_PER_PIXEL + heat


def memory_bytes(pipe: Pipeline, config: ModelConfig, settings: GenerateConfig) -> tuple[int, int]:
    """Bytes of GPU memory for weights, and for activations where they are most.

    That is in the widest layers at full size: the decoder's last block, or the UNet's first, whose transformer's
    hidden layer is eight times as wide as the block. Attention itself is computed without its matrix. For Stable
    Diffusion 1.5 at 512x512 this is 17 % above a count of the live tensors for the decoder, 8 % for the UNet.
    """
    parts = [part for part in pipe.components.values() if hasattr(part, "parameters")]
    sizes = [sum(weight.numel() * weight.element_size() for weight in part.parameters()) for part in parts]
    item = next(pipe.unet.parameters()).element_size()
    height, width = settings.size_hw
    num_pixels = height * width
    if config.low_memory:
        num_pixels = min(num_pixels, pipe.vae.config.sample_size**2)
    narrow, wide = (*pipe.vae.config.block_out_channels, pipe.vae.config.block_out_channels[-1])[:2]
    decoder = (1 if config.low_memory else settings.batch_size) * num_pixels * (3 * wide + narrow) * item
    num_halves = 2 if settings.guidance_scale > 1 else 1
    latents = height * width // pipe.vae_scale_factor**2
    unet = num_halves * settings.batch_size * latents * 12 * pipe.unet.config.block_out_channels[0] * item
    return max(sizes) if config.low_memory else sum(sizes), max(decoder, unet)


def run_trial(pipe: Pipeline, plan: Plan, settings: GenerateConfig) -> Trial:
    """Run the first batch with few denoising steps, after one step to warm up, and throw its images away."""
    import torch

    from diffugen.attention.extract import generate_with_attention

    on_gpu = pipe._execution_device.type == "cuda"
    batch_size = min(len(plan.samples), settings.batch_size) if on_gpu else 1  # a CPU gains nothing by batches
    prompts = plan.prompts[:batch_size]
    inputs: dict[str, Any] = {}
    if plan.variations:
        loaded = [next(iter(plan.variations.values())).load()] * batch_size
        inputs = {"images": [image for image, _ in loaded], "strength": 1.0}
        if loaded[0][1] is not None:
            inputs["masks"] = [mask for _, mask in loaded]
    moments: list[float] = []

    def note(step: int = 0) -> None:
        if on_gpu:
            torch.cuda.synchronize()
        moments.append(time.perf_counter())

    def run(num_steps: int) -> None:
        moments.clear()
        note()
        few = settings.model_copy(update={"num_inference_steps": num_steps})
        generate_with_attention(pipe, prompts, [0] * batch_size, few, on_step=note, **inputs)
        note()

    run(1)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    run(NUM_TRIAL_STEPS)
    step = min(after - before for before, after in pairwise(moments[1:-1]))
    return Trial(
        batch_size=batch_size,
        step_seconds=step,
        other_seconds=max(0.0, moments[-1] - moments[0] - NUM_TRIAL_STEPS * step),
        peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
        device=torch.cuda.get_device_name() if on_gpu else pipe._execution_device.type,
    )


def is_here(model: str, revision: str | None = None, file: str = "model_index.json") -> bool:
    """Whether a model is on this machine: as a folder, a file, or in the hub's cache.

    Args:
        model: path or hub id.
        revision: of the hub's.
        file: what its repository has.
    """
    if Path(model).expanduser().exists():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, file, revision=revision), str)
    except HFValidationError:  # no hub id
        return False


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


def _duration(seconds: float) -> str:
    for unit, length in (("seconds", 100), ("minutes", 100 * 60)):
        if seconds < length:
            return f"{seconds / (length / 100):.2g} {unit}"
    return f"{seconds / 3600:.2g} hours"
