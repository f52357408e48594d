"""Estimates before generating: from the model where it is here, and honest where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from watching import watching

from diffugen.config.settings import GenerateConfig, ModelConfig
from diffugen.errors import UserError
from diffugen.generation.estimate import Trial, disk_bytes, estimate, is_here, memory_bytes, run_trial
from diffugen.generation.plan import Plan, plan_samples
from diffugen.generation.variations import Variation
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Sample

SETTINGS = GenerateConfig(height=64, width=96, num_inference_steps=20, guidance_scale=3, batch_size=2)
PROMPTS = [Prompt("a red car", (ObjectPhrase("red car", "car"),)), Prompt("a tent"), Prompt("a tent at night")]


def plan_of(prompts: list[Prompt], variations: list[Variation] | None = None) -> Plan:
    seeds = list(range(len(prompts)))
    return plan_samples(Path("out"), (), prompts, seeds, SETTINGS, model="m", variations=variations)


def test_time_grows_with_images_and_steps() -> None:
    trial = Trial(batch_size=4, step_seconds=0.5, other_seconds=2.0, peak_bytes=None, device="cpu")
    assert trial.total_seconds(num_images=8, num_steps=10) == 2 * (2.0 + 10 * 0.5)
    assert trial.total_seconds(num_images=1, num_steps=0) == 0.5


def test_disk_is_reckoned_per_image_and_object() -> None:
    one = disk_bytes(SETTINGS, PROMPTS[1:2])
    assert one == pytest.approx(64 * 96 * 1.8 + 64 * 96 / 64 * 4)
    assert disk_bytes(SETTINGS, PROMPTS[:2]) == pytest.approx(2 * one + 64 * 96 / 64 * 4)
    watched = watching(SETTINGS, self_attention_factor=2)
    assert disk_bytes(watched, PROMPTS[1:2]) == pytest.approx(one + (4 * 6) ** 2 * 2)
    twice = SETTINGS.model_copy(update={"height": 128})
    assert disk_bytes(twice, PROMPTS) == pytest.approx(2 * disk_bytes(SETTINGS, PROMPTS))


def test_memory_is_reckoned_from_the_weights_and_widths(tiny_pipeline: Any) -> None:
    def reckon(settings: GenerateConfig = SETTINGS, **options: Any) -> tuple[int, int]:
        return memory_bytes(tiny_pipeline, ModelConfig(path="m", **options), settings)

    models = [tiny_pipeline.unet, tiny_pipeline.vae, tiny_pipeline.text_encoder]
    sizes = [4 * sum(weight.numel() for weight in model.parameters()) for model in models]
    weights, activations = reckon()
    assert weights == sum(sizes)
    assert reckon(SETTINGS.model_copy(update={"batch_size": 8})) == (weights, 4 * activations)
    sparing = reckon(low_memory=True)
    assert sparing[0] == max(sizes) and sparing[1] < activations
    tiny_pipeline.to(dtype=torch.float16)
    assert reckon() == (weights // 2, activations // 2)


def test_a_trial_runs_what_will_be_run(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffugen.attention import extract as attention

    seen: list[dict[str, Any]] = []
    real = attention.generate_with_attention

    def watched(pipe: Any, prompts: Any, seeds: Any, settings: Any, **options: Any) -> Any:
        seen.append({"prompts": prompts, "settings": settings, **options})
        return real(pipe, prompts, seeds, settings, **options)

    monkeypatch.setattr(attention, "generate_with_attention", watched)
    pixels = np.zeros((64, 96, 3), np.uint8)
    variation = Variation(Sample("a", pixels), (), PROMPTS[0], 0.5, size_hw=(64, 96))
    trial = run_trial(tiny_pipeline, plan_of(PROMPTS, [variation] * len(PROMPTS)), SETTINGS)
    assert [call["settings"].num_inference_steps for call in seen] == [1, 3]
    assert (seen[1]["images"][0] == pixels).all() and "masks" not in seen[1]
    assert seen[1]["prompts"] == PROMPTS[:1]
    assert (trial.batch_size, trial.peak_bytes, trial.device) == (1, None, "cpu")
    assert trial.step_seconds > 0 <= trial.other_seconds


def test_estimates_of_a_model_that_is_here(tiny_pipeline_dir: Path) -> None:
    lines = estimate(ModelConfig(path=str(tiny_pipeline_dir), device="cpu"), SETTINGS, plan_of(PROMPTS))
    disk, duration, memory = lines
    assert disk.startswith("disk: about 34.7 kB") and "1.8 bytes per pixel" in disk
    assert duration.startswith("time: about ") and "on cpu" in duration and "(measured: " in duration
    assert memory.startswith("GPU memory: about ") and "at 2 images at a time (there is no GPU here: " in memory


def test_prompts_that_do_not_fit_are_found_before_anything_runs(tiny_pipeline_dir: Path) -> None:
    with pytest.raises(UserError, match="'bus' is not in the prompt"):
        estimate(
            ModelConfig(path=str(tiny_pipeline_dir), device="cpu"),
            SETTINGS,
            plan_of([*PROMPTS, Prompt("a tent", (ObjectPhrase("bus", "bus"),))]),
        )


@pytest.mark.parametrize("path", ["somebody/some_model", "./gone", "no hub id at all"])
def test_a_model_that_is_not_here_is_not_fetched(path: str) -> None:
    config = ModelConfig(path=path)
    assert not is_here(config.path)
    disk, rest = estimate(config, SETTINGS, plan_of(PROMPTS))
    assert disk.startswith("disk: about ")
    assert rest == f"time and memory: unknown, as model.path {path!r} is not on this machine"


def test_a_device_that_is_not_here_is_no_mistake(tiny_pipeline_dir: Path) -> None:
    config = ModelConfig(path=str(tiny_pipeline_dir), device="cuda:7")
    assert "unknown, as model.device 'cuda:7' is not on this machine" in estimate(config, SETTINGS, plan_of(PROMPTS))[1]
