"""Images and instances of a made-up round, written without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bootstrap.config import LoopConfig
from diffugen.config.loader import validate
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Decision, Sample

CLASSES = ("piano", "car")
SIZE_HW = (48, 64)


def loop_config(rounds: dict[str, Any] | None = None, **values: Any) -> LoopConfig:
    """The config of a loop that is never run; its files need not be there."""
    prompts = {
        "templates": [{"text": "a photo of a {rare}"}, {"text": "a photo of a {common} {time}"}],
        "objects": {"rare": {"piano": ["<piano>"]}, "common": {"car": ["red car"]}},
        "attributes": {"time": ["at night", ""]},
    }
    defaults = {
        "name": "test",
        "classes": CLASSES,
        "rare_classes": ["piano"],
        "model": {"path": "unused"},
        "prompts": prompts,
        "detector": {"base_weights": "unused"},
        "rounds": {"num_images": 6, **(rounds or {})},
    }
    return validate(defaults | values, LoopConfig)


def doubtful(sample: Sample, reason: str = "low_iou:piano") -> Sample:
    """The sample, put aside for a person to look at."""
    return replace(sample, reason=reason, split="", decision=replace(sample.decision or Decision(), review=True))


def make_instances(class_ids: Sequence[int]) -> Instances:
    """Bars of the image's height, side by side."""
    masks = np.zeros((len(class_ids), *SIZE_HW), bool)
    for index, mask in enumerate(masks):
        mask[8:40, 4 + 20 * index : 16 + 20 * index] = True
    return Instances.from_masks(masks, class_ids, [0.9] * len(class_ids))


def make_generated(folder: Path, number: int, class_ids: Sequence[int], prefix: str = "r00_") -> Sample:
    """An image of noise with a heatmap per object, in a round's folder; it has no labels."""
    rng = np.random.default_rng(number)
    heatmap_path = folder / "heatmaps" / f"{number:06d}.npz"
    sample = Sample(
        name=f"{prefix}{number:06d}",
        image=folder / "images" / f"{number:06d}.png",
        heatmap_path=heatmap_path,
        task="txt2img",
        prompt=Prompt(
            f"photo {number} of {len(class_ids)} <things> & others",
            tuple(ObjectPhrase(CLASSES[index], CLASSES[index]) for index in class_ids),
        ),
        seed=number,
    )
    write_png(sample.image_path, rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8))
    heatmap_path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(heatmap_path, values=rng.random((len(class_ids), 6, 8), dtype=np.float32))
    return sample
