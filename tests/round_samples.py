"""Images and instances of a made-up round, written without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffugen.generation.record import GeneratedRecord
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt

CLASSES = ("piano", "car")
SIZE_HW = (48, 64)


def make_instances(class_ids: Sequence[int]) -> Instances:
    """Bars of the image's height, side by side."""
    masks = np.zeros((len(class_ids), *SIZE_HW), bool)
    for index, mask in enumerate(masks):
        mask[8:40, 4 + 20 * index : 16 + 20 * index] = True
    return Instances.from_masks(masks, class_ids, [0.9] * len(class_ids))


def make_source(folder: Path, number: int, class_ids: Sequence[int]) -> GeneratedRecord:
    """An image of noise with a heatmap per object, in a round's folder."""
    rng = np.random.default_rng(number)
    source = GeneratedRecord(
        id=f"{number:06d}",
        image_path=folder / "images" / f"{number:06d}.png",
        heatmap_path=folder / "heatmaps" / f"{number:06d}.npz",
        prompt=Prompt(
            f"photo {number} of {len(class_ids)} <things> & others",
            tuple(ObjectPhrase(CLASSES[index], CLASSES[index]) for index in class_ids),
        ),
        seed=number,
    )
    write_png(source.image_path, rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8))
    source.heatmap_path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(source.heatmap_path, values=rng.random((len(class_ids), 6, 8), dtype=np.float32))
    return source
