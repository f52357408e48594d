"""Variations of earlier rounds' kept images as further images of a round: img2img, or inpainting of one object.

`diffugen.generation.variations` plans them, as for `diffugen generate`. Only images that were generated from noise are
varied, so that errors do not add up, and none whose prompt a validation image has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bootstrap.config import LoopConfig, VariationsConfig
from bootstrap.corrections import corrections_of_round, latest_samples
from bootstrap.run_folder import RoundFolder, RunFolder, derive_seed
from diffugen.errors import UserError
from diffugen.generation.variations import Variation, plan_variations
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt, class_words
from diffugen.sample import Sample

logger = logging.getLogger(__name__)


def samples_to_vary(run: RunFolder, folder: RoundFolder) -> list[Sample]:
    """The samples of the rounds before this one with their current labels, see `latest_samples`.

    A person's corrections are copied into the round's folder once. Corrections that arrive while the round is
    interrupted apply from the next round on; otherwise the round's variations would start from different labels.
    """
    return latest_samples(run, corrections_of_round(run, folder))


def plan_round_variations(config: LoopConfig, earlier: Sequence[Sample], index: int) -> list[Variation]:
    """Plan the variations of a round; they follow from the run's seed.

    Args:
        config: the loop's settings.
        earlier: the samples of all rounds before this one, see `samples_to_vary`, with the validation split.
        index: the round's.

    Returns:
        The variations of all entries of `rounds.variations`, none of an entry that finds nothing to vary.
    """
    parents = list(_parents(earlier))
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
    """Prompts that variations of images with these prompts may have, one per image or object, to check them early.

    Raises:
        UserError: an entry of `rounds.variations` can never repaint anything.
    """
    images = [_imagined(prompt, config.classes) for prompt in prompts]
    found: list[Prompt] = []
    for number, entry in enumerate(config.rounds.variations):
        planned = _plan(entry, images, config, seed=number)
        if not planned:
            raise UserError(
                f"setting 'rounds.variations.{number}': no object that 'prompts' asks for may be repainted; "
                "see its setting 'only'"
            )
        found += [variation.prompt for variation in planned]
    return found


def shown_prompt(sample: Sample, variation: Variation | None) -> Prompt:
    """A prompt that asks for all that an image must show: its own objects, and those that inpainting left alone.

    Args:
        sample: a generated image.
        variation: what it was generated from; None where that was noise.
    """
    if variation is None or variation.target is None:
        return sample.prompt
    class_ids = np.delete(variation.source.class_ids, variation.target)
    names = [variation.class_names[class_id] for class_id in class_ids]
    untouched = tuple(ObjectPhrase(name, name) for name in names)
    return replace(sample.prompt, objects=sample.prompt.objects + untouched)


def _plan(
    entry: VariationsConfig,
    sources: Sequence[Sample],
    config: LoopConfig,
    *,
    seed: int,
    num_images: int | None = None,
) -> list[Variation]:
    assert config.prompts is not None
    words = {name: (text,) for name, text in class_words(config.prompts).items()}
    task, prompts = entry.task.model_copy(update={"words": words}), entry.prompts(config.prompts)
    return plan_variations(
        sources,
        config.classes,
        task,
        prompts,
        size_hw=config.generate.size_hw,
        num_images=num_images,
        seed=seed,
    )


def _parents(samples: Sequence[Sample]) -> Iterator[Sample]:
    """The samples that may be varied."""
    validation = {sample.prompt.text for sample in samples if sample.split == "val"}
    for sample in samples:
        if sample.split == "train" and sample.task == "txt2img" and sample.prompt.text not in validation:
            yield sample


def _imagined(prompt: Prompt, class_names: Sequence[str]) -> Sample:
    """An image that shows what its prompt asks for; it has no file."""
    class_ids = [class_names.index(phrase.class_name) for phrase in prompt.objects]
    instances = Instances.from_masks(np.ones((len(class_ids), 8, 8), bool), class_ids)
    return replace(Sample.labelled(prompt.text, Path(), instances, "train"), prompt=prompt)
