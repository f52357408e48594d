"""What does looking cost? `python benchmarks/attribution_overhead.py --json FILE [--full-size-on-cpu]`

Generates the same images plainly, with our capture (its default settings) and with daam 0.2.0 (dependency group
`oracle`), in turn, round after round, in one process: on the toy pipeline on the CPU; and on a pipeline of Stable
Diffusion 1.5's architecture with random weights, 512x512, on a GPU where there is one.

Time is CPU time on the CPU, wall time on a GPU; memory is the most that tensors took at once, the weights among them.
Time's ratios are medians over the rounds of one way's seconds over the plain one's in the same round. daam takes one
prompt per call, so for a batch it is called that many times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPTextConfig, CLIPTextModel

from diffugen.attention.extract import generate_with_attention
from diffugen.config.settings import AttentionConfig, GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.files import write_json
from diffugen.prompts.prompt import ObjectPhrase, Prompt

TOY = Path(__file__).parents[1] / "diffugen/toyworld/weights/pipeline"
PROMPT = Prompt(
    "a photo of a red car and a blue tent in a city at night",
    (ObjectPhrase("red car", "car"), ObjectPhrase("blue tent", "tent")),
)
DAAMS = AttentionConfig(blocks=("down", "up"), factors=(1, 2, 4), self_attention_factor=0)
WAYS = ("plain", "ours", "daam")
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each way")
    parser.add_argument("--full-size-on-cpu", action="store_true", help="the large architecture too, one step; minutes")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # daam's, about old interfaces
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "toy_cpu": toy_figures(args.rounds)}
    if torch.cuda.is_available():
        figures["sd15_gpu"] = full_size_figures("cuda", torch.float16, args.rounds, num_steps=20, batches=(1, 8))
    else:
        figures["sd15_gpu"] = {"skipped": "torch finds no GPU"}
    if args.full_size_on_cpu:
        figures["sd15_cpu"] = full_size_figures("cpu", torch.float32, rounds=1, num_steps=1, batches=(1,))
    write_json(args.json, figures)
    print(json.dumps(figures, indent=1))


def toy_figures(rounds: int) -> dict[str, Any]:
    """Time and memory on the toy pipeline as the demo uses it, one image and a batch of 8."""
    pipe, settings = load_toy(), toy_settings()
    figures = {}
    for batch in (1, 8):
        seconds = interleave(pipe, settings, batch, rounds, time.process_time)
        memory = {way: peak_memory(pipe, settings, batch, way) for way in seconds}
        figures[f"batch_{batch}"] = _summary(seconds, memory)
    return figures


def full_size_figures(
    device: str, dtype: torch.dtype, rounds: int, *, num_steps: int, batches: tuple[int, ...]
) -> dict[str, Any]:
    """Time and memory on Stable Diffusion 1.5's architecture at 512x512."""
    pipe = build_sd15(device).to(device, dtype)
    settings = GenerateConfig(height=512, width=512, num_inference_steps=num_steps, attention=DAAMS)
    on_gpu = device == "cuda"
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "num_steps": num_steps}
    for batch in batches:
        seconds = interleave(pipe, settings, batch, rounds, _gpu_clock if on_gpu else time.process_time)
        memory = {way: peak_memory(pipe, settings, batch, way) for way in seconds}
        figures[f"batch_{batch}"] = _summary(seconds, memory)
    return figures


def interleave(
    pipe: Any, settings: GenerateConfig, batch: int, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every way in every round; the first round warms up and is not counted."""
    ways = [way for way in WAYS if way != "daam" or _has_daam()]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:  # none always comes first
            start = clock()
            run(pipe, settings, batch, way)
            if number:
                seconds[way].append(clock() - start)
    return seconds


def run(pipe: Any, settings: GenerateConfig, batch: int, way: str) -> None:
    """Generate a batch in one of the ways, heatmaps included."""
    if way == "ours":
        generate_with_attention(pipe, [PROMPT] * batch, list(range(batch)), settings)
    elif way == "plain":
        _plain(pipe, settings, list(range(batch)))
    else:
        for seed in range(batch):
            _with_daam(pipe, settings, seed)


def _plain(pipe: Any, settings: GenerateConfig, seeds: list[int]) -> None:
    pipe(
        [PROMPT.text] * len(seeds),
        height=settings.height,
        width=settings.width,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )


def _with_daam(pipe: Any, settings: GenerateConfig, seed: int) -> None:
    import daam

    with torch.no_grad(), daam.trace(pipe) as trace:
        pipe(
            PROMPT.text,
            height=settings.height,
            width=settings.width,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
        )
        heat = trace.compute_global_heat_map()
    for phrase in PROMPT.objects:
        heat.compute_word_heat_map(phrase.text)


def _has_daam() -> bool:
    try:
        import daam  # noqa: F401
    except ImportError:
        return False
    return True


def load_toy() -> Any:
    """The toy pipeline; it must call itself 64x64 for daam, which then leaves its coarse maps out."""
    pipe = load_pipeline(ModelConfig(path=str(TOY), device="cpu"))
    pipe.unet.register_to_config(sample_size=64)
    return pipe


def toy_settings() -> GenerateConfig:
    return GenerateConfig(height=128, width=128, num_inference_steps=15, guidance_scale=4.0, attention=DAAMS)


def build_sd15(device: str = "cpu") -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's architecture with random weights, drawn on the device, and the toy pipeline's tokenizer.

    A billion numbers take a CPU a minute, a GPU a moment.
    """
    tokenizer = load_toy().tokenizer
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    with torch.device(device):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        text_encoder = CLIPTextModel(text)
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # else its defaults are SD 1.5's
    pipe = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def peak_memory(pipe: Any, settings: GenerateConfig, batch: int, way: str) -> float:
    """Most MiB of tensors at once while a batch is generated, the weights among them."""
    if pipe.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run(pipe, settings, batch, way)
        return torch.cuda.max_memory_allocated() / MIB
    few = settings.model_copy(update={"num_inference_steps": 2})  # the steps are alike
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(pipe, few, batch, way)
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = (event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns()))
    modules = (pipe.unet, pipe.vae, pipe.text_encoder)
    weights = sum(weight.nbytes for module in modules for weight in module.parameters())
    return (weights + max(itertools.accumulate(sizes))) / MIB


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _summary(seconds: dict[str, list[float]], memory: dict[str, float]) -> dict[str, Any]:
    pairs = {way: zip(values, seconds["plain"], strict=True) for way, values in seconds.items()}
    return {
        "seconds": {way: round(median(values), 3) for way, values in seconds.items()},
        "time_ratio": {way: round(median(own / plain for own, plain in pair), 3) for way, pair in pairs.items()},
        "peak_mib": {way: round(value, 1) for way, value in memory.items()},
        "memory_ratio": {way: round(value / memory["plain"], 3) for way, value in memory.items()},
    }


if __name__ == "__main__":
    main()
