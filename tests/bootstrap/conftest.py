"""Rounds on disk, made without a model: images, heatmaps and samples as the stages leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bootstrap.disagreement import Verdict
from bootstrap.samples import SampleRecord, make_sample
from diffugen.generate import GeneratedRecord
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.prompts import ObjectPhrase, Prompt

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


@pytest.fixture
def two_objects() -> Instances:
    """A piano and a car, side by side in an image of 48 x 64 pixels."""
    return make_instances([0, 1])


@pytest.fixture
def make_samples() -> Callable[..., list[SampleRecord]]:
    """From a round's folder, class ids of each image, and reasons of the rejected by number: samples."""

    def make(
        folder: Path, images: Sequence[Sequence[int]], rejected: dict[int, str] | None = None
    ) -> list[SampleRecord]:
        samples = []
        for number, class_ids in enumerate(images):
            reason = (rejected or {}).get(number, "")
            instances = make_instances(class_ids)
            verdict = Verdict("reject" if reason else "keep", reason, instances, agreement=0.75)
            source = make_source(folder, number, class_ids)
            samples.append(make_sample(source, 0, verdict, "attention", {"attention": instances}))
        return samples

    return make
