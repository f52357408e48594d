"""Variations as further images of a round: kept ones of earlier rounds, drawn over or with one object repainted.

They are made by `diffugen.generation.variations`, as `diffugen generate` makes them of a dataset. Only images that were
generated from noise are varied, so that errors do not add up, and none that validation images resemble: what is made of
training images trains.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bootstrap.config import LoopConfig, VariationsConfig
from bootstrap.corrections import latest_samples, read_corrections
from bootstrap.labelers import EncodedLabels
from bootstrap.run_folder import RoundFolder, RunFolder, derive_seed
from bootstrap.samples import SampleRecord
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from diffugen.generation.record import GeneratedRecord, provenance_of
from diffugen.generation.sources import SourceImage
from diffugen.generation.variations import Variation, label_inpainted, plan_variations
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt, class_words

logger = logging.getLogger(__name__)


def samples_to_vary(run: RunFolder, folder: RoundFolder) -> list[SampleRecord]:
    """The samples of the rounds before this one by the latest word about each, see `latest_samples`.

    The corrections of a person are copied into the round's folder once: ones that come while the round is cut off count
    from the next round on, or some of this one's variations would start from other labels than the rest.
    """
    if not folder.corrections.is_file():
        write_json(folder.corrections, read_corrections(run))
    return latest_samples(run, read_json(folder.corrections))


def plan_round_variations(config: LoopConfig, earlier: Sequence[SampleRecord], index: int) -> list[Variation]:
    """What a round varies, and how; it follows from the run's seed.

    Args:
        config: the loop's settings.
        earlier: the samples of all rounds before this one, see `samples_to_vary`, with the validation split.
        index: the round's.

    Returns:
        The variations of all entries of `rounds.variations`, none of an entry that finds nothing to vary.
    """
    parents = list(_parents(earlier, config.classes))
    planned = []
    for number, entry in enumerate(config.rounds.variations if index else ()):
        seed = derive_seed(config.seed, "variations", index, number)
        found = _plan(entry, parents, config, seed=seed, num_images=entry.num_images)
        if not found:
            logger.warning(
                "round %d: rounds.variations.%d finds nothing to vary among what was kept so far", index, number
            )
        planned += found
    return planned


def possible_prompts(config: LoopConfig, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts that variations of images of these prompts may have: one for each image or object, to check beforehand.

    Raises:
        UserError: an entry of `rounds.variations` can never repaint anything.
    """
    images = [_imagined(prompt, config.classes) for prompt in prompts]
    found: list[Prompt] = []
    for number, entry in enumerate(config.rounds.variations):
        planned = _plan(entry, images, config, seed=number)
        if not planned:
            raise UserError(
                f"setting 'rounds.variations.{number}.task': no object that 'prompts' asks for may be repainted; "
                "see its settings 'only' and 'replace'"
            )
        found += [variation.prompt for variation in planned]
    return found


def carry_labels(
    labels: Sequence[EncodedLabels],
    records: Sequence[GeneratedRecord],
    variations: Mapping[str, Variation],
    class_names: Sequence[str],
    min_area_fraction: float,
) -> list[EncodedLabels]:
    """The labels of a round: where an object was repainted, attention's word about all others is what they had before.

    Args:
        labels, records: aligned; what every labeler saw in each image.
        variations: by record id, what variations were made of.
        class_names: names of the class ids.
        min_area_fraction: see `label_inpainted`.
    """
    carried = []
    for seen, record in zip(labels, records, strict=True):
        variation = variations.get(record.id)
        if variation is not None and variation.target is not None:
            attended = Instances.from_json(seen["attention"])
            merged, _ = label_inpainted(variation, attended, class_names, min_area_fraction)
            seen = {**seen, "attention": merged.to_json()}
        carried.append(seen)
    return carried


def shown_prompt(record: GeneratedRecord, variations: Mapping[str, Variation]) -> Prompt:
    """A prompt that asks for all that an image must show: its own objects, and those that inpainting left alone.

    Args:
        record: a generated image.
        variations: by record id, what variations were made of.
    """
    variation = variations.get(record.id)
    if variation is None or variation.target is None:
        return record.prompt
    source = variation.source
    names = [source.class_names[class_id] for class_id in np.delete(source.instances.class_ids, variation.target)]
    untouched = tuple(ObjectPhrase(name, name) for name in names)
    return replace(record.prompt, objects=record.prompt.objects + untouched)


def _plan(
    entry: VariationsConfig,
    sources: Sequence[SourceImage],
    config: LoopConfig,
    *,
    seed: int,
    num_images: int | None = None,
) -> list[Variation]:
    task = entry.task.model_copy(update={"words": class_words(config.prompts) | entry.task.words})
    size_hw = config.generate.size_hw
    return plan_variations(sources, task, entry.prompts, size_hw=size_hw, num_images=num_images, seed=seed)


def _parents(samples: Sequence[SampleRecord], class_names: Sequence[str]) -> Iterator[SourceImage]:
    """The samples that may be varied."""
    validation = {sample.source.prompt.text for sample in samples if sample.split == "val"}
    for sample in samples:
        source = sample.source
        if sample.split == "train" and source.task == "txt2img" and source.prompt.text not in validation:
            yield SourceImage(
                name=sample.name,
                split=sample.split,
                path=source.image_path,
                prompt=source.prompt,
                class_names=tuple(class_names),
                encoded=sample.encoded,
                provenance=provenance_of(source, sample.labeler),
            )


def _imagined(prompt: Prompt, class_names: Sequence[str]) -> SourceImage:
    """An image that shows what its prompt asks for; it has no file."""
    class_ids = [class_names.index(phrase.class_name) for phrase in prompt.objects]
    instances = Instances.from_masks(np.ones((len(class_ids), 8, 8), bool), class_ids)
    return SourceImage(prompt.text, "train", Path(), prompt, tuple(class_names), instances.to_json())
