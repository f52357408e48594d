"""Photos that came with labels, in a loop of photographs alone: they begin it, and show how well its detectors do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bootstrap.config import LoopConfig
from bootstrap.run_folder import RunFolder
from bootstrap.training_set import import_labelled, labelled_samples
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Sample

MOST_PHOTOS = 200
"""Photos that are judged in every round, spread over the dataset: enough to tell rounds apart."""


def given_photos(config: LoopConfig, run: RunFolder) -> list[Sample]:
    """Labelled photos that show a rare object, at most `MOST_PHOTOS`, all of their labels with them; none without
    `labelled`.

    Their prompts name the object by which each is judged: of several the largest.
    """
    if config.labelled is None:
        return []
    import_labelled(config.labelled, config.classes, run)
    photos = list(labelled_samples(run.labelled, config.classes))
    if len(photos) < 2:
        raise UserError(
            f"setting 'labelled': {config.labelled} has {len(photos)} image; give at least two, since each is judged "
            "by a detector that was trained on the others"
        )
    judged = [(photo, largest_rare(photo.instances, config)) for photo in photos]
    shown = [
        replace(photo, prompt=Prompt("", (ObjectPhrase(name, name),)))
        for photo, one in judged
        for name in (config.classes[class_id] for class_id in one.class_ids)
    ]
    return shown[:: max(1, -(-len(shown) // MOST_PHOTOS))]


def largest_rare(instances: Instances, config: LoopConfig) -> Instances:
    """The largest object of a rare class: one instance, or none."""
    rare = [config.classes.index(name) for name in config.rare_classes]
    areas = np.where(np.isin(instances.class_ids, rare), instances.masks.sum(axis=(1, 2)), 0)
    return instances.subset(np.argsort(-areas, kind="stable")[: int(areas.any())])


def without_labelled(photos: Sequence[Sample], config: LoopConfig, run: RunFolder) -> list[Sample]:
    """Those of the pool's photos that are not labelled ones as well, pixel by pixel."""
    if config.labelled is None:
        return list(photos)
    known = {_digest(given) for given in labelled_samples(run.labelled, config.classes)}
    return [photo for photo in photos if _digest(photo) not in known]


def _digest(photo: Sample) -> bytes:
    pixels = photo.pixels()
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
