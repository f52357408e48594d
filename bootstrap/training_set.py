"""What a round trains on: kept samples, photos' objects pasted, and images that came with labels."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from bootstrap.checksums import note_finished, trouble_of
from bootstrap.context import RoundContext
from bootstrap.corrections import latest_samples, read_corrections, with_corrections
from bootstrap.doubtful import doubtful_boxes, is_partly_known, without_doubtful
from bootstrap.pasting import Paste, plan_pastes
from bootstrap.run_folder import RunFolder, derive_seed
from bootstrap.samples import one_per_photo, with_relabelled
from diffugen.datasets.folder import read_dataset, write_dataset
from diffugen.errors import UserError
from diffugen.progress import progress_bar
from diffugen.prompts.splits import split_groups
from diffugen.sample import Sample, read_samples

logger = logging.getLogger(__name__)


def write_training_set(context: RoundContext, samples: Sequence[Sample]) -> Path:
    """Write the round's dataset: the validation split, what is trained on, and images that came with labels.

    Args:
        context: the round's.
        samples: its own, labelled.
    """
    config, folder = context.config, context.folder
    if not folder.dataset.is_dir():
        images = list(round_images(context, samples))
        pastes = round_pastes(context, images)
        if config.pool is not None and config.pool.pasted and not pastes:
            logger.warning(
                "round %d: nothing is pasted; no photo with a rare object was kept, or no generated image without one",
                context.index,
            )
        trained = written(images, pastes)
        write_dataset(folder.dataset, chain(validation_samples(context.run), trained), config.classes)
        note_finished(folder, folder.dataset)
    return folder.dataset


def round_pastes(context: RoundContext, images: Sequence[Sample]) -> list[Paste]:
    """What a round pastes, see `pool.pasted`, among the images that one of its detectors is trained on."""
    config = context.config
    if config.pool is None or not config.pool.pasted:
        return []
    rare_ids = [config.classes.index(name) for name in config.rare_classes]
    return plan_pastes(images, rare_ids, config.pool.pasted, derive_seed(config.seed, "paste", context.index))


def written(images: Iterable[Sample], pastes: Sequence[Paste]) -> Iterator[Sample]:
    """Training images as a dataset has them: grey where labelers disagree, and the pasted ones."""
    yield from map(without_doubtful, images)
    num_made = 0
    for paste in progress_bar(pastes, desc="pasting", unit="image", leave=False, delay=2):
        if (sample := paste.sample()) is not None:
            num_made += 1
            yield sample
    if num_made < len(pastes):
        logger.warning(
            "%d of %d objects of photos found no place on a generated image, and are not pasted",
            len(pastes) - num_made,
            len(pastes),
        )


def round_images(context: RoundContext, samples: Sequence[Sample]) -> Iterator[Sample]:
    """What a round's detector is trained on: kept samples, and images that came with labels."""
    config, run = context.config, context.run
    given: Iterable[Sample] = ()
    if config.labelled is not None:
        import_labelled(config.labelled, config.classes, run)
        given = labelled_samples(run.labelled, config.classes)
    chosen = training_samples(samples, earlier_samples(context))
    return chain((sample for sample in chosen if sample.kept), given)


def validation_samples(run: RunFolder) -> list[Sample]:
    """The frozen validation split: a share of round 0's kept samples, with the labels that they had then."""
    return [sample for sample in read_samples(run.round(0).samples) if sample.split == "val"]


def relabels_earlier(context: RoundContext) -> bool:
    """Whether a round re-labels the images of earlier ones.

    That is where the detector's labels count: attention's do not change. Photos are labelled by every round anyway.
    """
    config = context.config
    return config.model is not None and config.rounds.filter.by == "agreement" and context.labeler == "detector"


def earlier_samples(context: RoundContext) -> list[Sample]:
    """The samples of the rounds before this one with their current labels: a person's corrections, else this round's
    where it re-labelled them, else the latest round's."""
    corrections = read_corrections(context.run)
    if not relabels_earlier(context):
        return latest_samples(context.run, corrections)
    found: list[Sample] = []
    for earlier in context.run.complete_rounds():
        samples = with_relabelled(read_samples(earlier.samples), earlier, context.folder)
        found += with_corrections(samples, corrections)
    return found


def import_labelled(dataset: Path, class_names: Sequence[str], run: RunFolder) -> None:
    """Copy a labelled dataset into the run once, its class ids those of the run; later rounds link to it.

    A copy that was damaged since is replaced.
    """
    target = run.labelled
    if target.is_dir() and (trouble := trouble_of(run, target)):
        logger.warning("%s; it is imported again from %s", trouble, dataset)
        shutil.rmtree(target)
    if not target.is_dir():
        images = read_dataset(dataset, "train", class_names)
        provenance = {"dataset": dataset.name, "labeler": "given"}
        given = (Sample.labelled(f"given_{name}", image, found, "train", provenance) for name, image, found in images)
        write_dataset(target, given, class_names)
        note_finished(run, target)


def labelled_samples(target: Path, class_names: Sequence[str]) -> Iterator[Sample]:
    """The images of an imported dataset, as links to its files."""
    for name, _, instances in read_dataset(target, "train", class_names):
        image = target / "images" / "train" / f"{name}.png"
        yield Sample.labelled(name, image, instances, "train", {"labeler": "given"})


def training_samples(samples: Sequence[Sample], earlier: Sequence[Sample]) -> list[Sample]:
    """What a round trains on: its own kept samples, and those of earlier rounds.

    Samples that a person corrected are always included, with the corrected labels. Variations of an image that was
    rejected later are left out: they show what it shows, and inpainted ones have part of its labels.
    """
    chosen = _train(samples)
    rejected = {sample.name for sample in earlier if not sample.kept}
    earlier = [
        sample
        for sample in one_per_photo(earlier)
        # every round re-labels the photos of the pool: the latest labels count, unless a person corrected them
        if sample.labeler == "person" or not sample.is_photo
    ]
    by_person = {sample.image_path.stem for sample in earlier if sample.labeler == "person" and sample.is_photo}
    chosen = _train(earlier) + [
        sample for sample in chosen if not sample.is_photo or sample.image_path.stem not in by_person
    ]
    return [sample for sample in chosen if sample.labeler == "person" or _parent_name(sample) not in rejected]


def _train(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.split == "train"]


def _is_known(sample: Sample) -> bool:
    """Whether labelers agree on all that an image shows, as far as it can be told."""
    return not (is_partly_known(sample) and len(doubtful_boxes(sample)))


def _parent_name(sample: Sample) -> str | None:
    """Of a variation, the name of its parent sample."""
    return sample.provenance.get("parent", {}).get("name")


def choose_validation(
    samples: Sequence[Sample], rare_ids: Sequence[int], val_fraction: float, seed: int
) -> list[Sample]:
    """Set a share of the kept samples aside for validation, at the same rate with and without a rare object.

    Args:
        samples: round 0's samples.
        rare_ids: class ids of the rare classes.
        val_fraction: share of the kept samples.
        seed: which ones.

    Raises:
        UserError: too few samples with a rare object were kept to train on some and validate on others.
    """
    # All photos of one object look alike, so they are used for training only, unless there is nothing else.
    all_photos = all(sample.is_photo for sample in samples)
    kept = [sample for sample in samples if sample.kept and (_is_known(sample) if all_photos else not sample.is_photo)]
    with_rare = [sample for sample in kept if set(sample.class_ids) & set(rare_ids)]
    without = [sample for sample in kept if not set(sample.class_ids) & set(rare_ids)]
    if len(with_rare) < 2:
        remedy = (
            "add photos to the pool, lower rounds.filter.min_iou, or draw some photos as 'labelled'"
            if all_photos
            else "raise rounds.num_images, lower rounds.filter.min_score, or see in concept/samples.png whether the "
            "model draws the object"
        )
        what = "images with a rare object"
        if all_photos:
            what = "photos with a rare object and without one that only some labelers find"
        raise UserError(f"round 0 kept {len(with_rare)} of {len(samples)} {what}, and at least 2 are needed; {remedy}")
    splits: dict[str, str] = {}
    for group in (with_rare, without):
        # Samples of one prompt stay together, else validation images would resemble training images.
        drawn = split_groups([sample.prompt.text or sample.name for sample in group], val_fraction, seed)
        splits |= {sample.name: "val" for sample, split in zip(group, drawn, strict=True) if split == "val"}
    # With few samples or prompts, similar images in both splits are better than an empty split.
    if all(sample.name in splits for sample in with_rare):
        del splits[with_rare[0].name]
    if not any(sample.name in splits for sample in with_rare):
        splits[with_rare[-1].name] = "val"
    return [replace(sample, split=splits.get(sample.name, sample.split)) for sample in samples]
