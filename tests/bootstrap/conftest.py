"""Rounds on disk, made without a model: images, heatmaps and samples as the stages leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from round_samples import make_generated, make_instances

from bootstrap.disagreement import Judgement
from bootstrap.samples import decided
from diffugen.instances import Instances
from diffugen.sample import Sample


@pytest.fixture
def two_objects() -> Instances:
    """A piano and a car, side by side in an image of 48 x 64 pixels."""
    return make_instances([0, 1])


@pytest.fixture(scope="session")
def make_samples() -> Callable[..., list[Sample]]:
    """From a round's folder, class ids of each image, and reasons of the rejected by number: samples."""

    def make(folder: Path, images: Sequence[Sequence[int]], rejected: dict[int, str] | None = None) -> list[Sample]:
        samples = []
        for number, class_ids in enumerate(images):
            reason = (rejected or {}).get(number, "")
            instances = make_instances(class_ids)
            judgement = Judgement("reject" if reason else "keep", reason, instances, agreement=0.75)
            drawn = make_generated(folder, number, class_ids)
            samples.append(decided(drawn, judgement, "attention", {"attention": instances.to_json()}))
        return samples

    return make
