"""The weights that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import diffugen.toyworld
from diffugen.detector.model import load_detector, predict
from diffugen.evaluation.metrics import average_precision
from diffugen.instances import Instances
from diffugen.toyworld import render
from diffugen.toyworld.scene import COMMON_KINDS, sample_scene

WEIGHTS = Path(diffugen.toyworld.__file__).parent / "weights"


def test_all_weights_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 30e6


@pytest.mark.parametrize("size_hw", [(128, 128), (96, 160)])
def test_diffusers_loads_the_pipeline_with_no_help(size_hw: tuple[int, int]) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    height, width = size_hw
    images = [
        pipe(
            f"a photo of a bus in a snowfield {time}",
            height=height,
            width=width,
            num_inference_steps=8,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images[0]
        for time in ("by day", "at night")
    ]
    assert images[0].shape == (height, width, 3)
    day, night = images
    assert day.mean() > night.mean() + 0.2  # the words matter


def test_the_base_detector_finds_common_kinds() -> None:
    scenes = [render(sample_scene(31_000_000 + k, kinds=COMMON_KINDS), (96, 128)) for k in range(24)]
    truths = [
        Instances.from_masks(scene.masks, [COMMON_KINDS.index(thing.kind) for thing in scene.scene.objects])
        for scene in scenes
    ]
    model = load_detector(WEIGHTS / "detector.safetensors")
    found = predict(model, [scene.image for scene in scenes], class_names=COMMON_KINDS, score_threshold=0.01)
    assert average_precision(found, truths, COMMON_KINDS)["mean"]["mask_map50"] > 0.85
    nothing = predict(model, [np.full((96, 128, 3), 128, np.uint8)], class_names=COMMON_KINDS, score_threshold=0.5)
    assert len(nothing[0]) == 0
