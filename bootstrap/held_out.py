"""Judging the user's photos by detectors that were not trained on them.

Photos that only a concept was learned from are judged by the round's own checkpoint. Photos of the pool, which train
it, are cross-fitted: they are dealt into folds, and each fold is judged by a further detector that was fine-tuned
without it, briefly. So are photos that came with labels, where there is no diffusion model. Generated images without
the object are dealt into the same folds. The concept has seen all photos.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from bootstrap.checksums import note_finished
from bootstrap.config import LoopConfig
from bootstrap.context import RoundContext
from bootstrap.disagreement import FOLD, MIN_DETECTOR_SCORE, mean_agreement
from bootstrap.evidence import MIN_SCORE, Evidence, NegativeFinding, PhotoFinding, judge_photo, without_others
from bootstrap.finetunes import FineTune
from bootstrap.given import given_photos, largest_rare
from bootstrap.labelers import attention_labeler, detector_labeler
from bootstrap.run_folder import NUM_FOLDS, RunFolder, derive_seed, promoted_round
from bootstrap.training_set import labelled_samples, round_images, round_pastes, validation_samples, written
from diffugen.datasets.folder import write_dataset
from diffugen.detector.model import write_threshold
from diffugen.detector.training import steps_per_epoch
from diffugen.diffusion.protocol import Pipeline
from diffugen.files import sha256_of
from diffugen.generation.photos import read_photos
from diffugen.images import list_images, read_image
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler, LabelInput, label_input
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Sample

Finding = TypeVar("Finding", PhotoFinding, NegativeFinding)

FOLD_STEPS = 80
"""Steps of a fold's fine-tuning: enough to find an object, a fraction of what the round's own takes. With 30 a later
round that was better by truth looked worse (docs/log.md)."""
MOST_NEGATIVES = 60
"""Images without the object that are looked at."""
OTHER = "other"
"""The slot of prompts that names things which are none of the run's classes."""


@dataclass(frozen=True)
class ObjectPhotos:
    """A folder of photos that all show one object.

    Attributes:
        folder: the photos.
        prompts: captions to read them with, each with the object in words of its own; it is of a rare class.
        failure: where the word learned from them draws nothing of them, that and what to do about it.
    """

    folder: Path
    prompts: tuple[Prompt, ...]
    failure: tuple[str, str] | None = None


def evidence_photos(
    config: LoopConfig, run: RunFolder, pipe: Pipeline | None, photos: Sequence[ObjectPhotos]
) -> list[Sample]:
    """The photos that each show a rare object, with their attention; read once per run.

    Without a model these are the photos that came with labels, if any.

    Args:
        config: of the run; without any photos of concepts, the pool counts if all of its photos show everything.
        run: its `photos/` keeps them.
        pipe: reads them.
        photos: those of the concepts.
    """
    if pipe is None:
        return given_photos(config, run)
    pool = config.pool
    if not photos and pool is not None and not pool.presence:
        photos = [ObjectPhotos(pool.folder, tuple(pool.prompts))]
    read: list[Sample] = []
    for number, one in enumerate(photos):
        attention = config.generate.attention.model_copy(update={"presence": False})
        out = run.photos / f"{number:02d}"
        found = read_photos(pipe, one.folder, one.prompts, attention, out, model=str(pipe.name_or_path))
        read += [replace(photo, name=f"{number:02d}_{photo.name}") for photo in found]
    return [photo for photo in read if _rare_class(photo, config)]


def collect_evidence(context: RoundContext, samples: Sequence[Sample], photos: Sequence[Sample]) -> Evidence:
    """Have a round's photos and negatives judged; writes `evidence.json`, and the threshold into the checkpoint.

    Args:
        context: the round's; its checkpoint is there, and those of the folds.
        samples: its own, labelled.
        photos: from `evidence_photos`.
    """
    folder = context.folder
    if folder.evidence.is_file():
        return Evidence.read(folder.evidence)
    outlines = _outlines(context.config, samples, photos)
    folds = _folds(context, samples, photos)
    checkpoint = detector_labeler(folder.weights, context.config, MIN_SCORE)
    judged: list[PhotoFinding] = []
    negatives: list[NegativeFinding] = []
    for number, (own, without) in enumerate(folds):
        judge = detector_labeler(folder.fold(number), context.config, MIN_SCORE)
        shown, absent = [p for p in photos if _key(p) in own], [s for s in samples if s.name in without]
        by_judge, by_checkpoint = (
            _findings(context, one, shown, outlines, f"fold {number}") for one in (judge, checkpoint)
        )
        judged += _with_trained(by_judge, by_checkpoint)
        negatives += _with_trained(*(_on_negatives(context, one, absent) for one in (judge, checkpoint)))
    folded = {key for own, _ in folds for key in own}
    rest = [photo for photo in photos if _key(photo) not in folded]
    judged += _findings(context, checkpoint, rest, outlines, "checkpoint")
    unseen = [sample for sample in validation_samples(context.run) if is_negative(sample, context.config)]
    negatives += _on_negatives(context, checkpoint, unseen[:MOST_NEGATIVES])
    negatives += _on_photos_without(context, checkpoint)
    evidence = Evidence(tuple(judged), tuple(negatives))
    if evidence.photos:
        write_threshold(folder.weights, evidence.threshold)
        note_finished(folder, folder.weights)
    evidence.write(folder.evidence)  # last: it says that the stage is done
    note_finished(folder, folder.evidence)
    return evidence


def _with_trained(by_judge: Iterable[Finding], by_trained: Iterable[Finding]) -> list[Finding]:
    """What a fold's judge found, with the scores of the detector that was trained on these images."""
    pairs = zip(by_judge, by_trained, strict=True)
    return [replace(one, trained_score=other.score) for one, other in pairs]


def _folds(
    context: RoundContext, samples: Sequence[Sample], photos: Sequence[Sample]
) -> list[tuple[set[str], set[str]]]:
    """Of each fold, the keys of the photos and the names of the generated images that it is trained without."""
    trained = {_key(sample) for sample in samples if sample.is_photo}
    # a photo that is there twice is in one fold, else each copy would be judged in both
    pooled = list(dict.fromkeys(key for one in photos if (key := _key(one)) in trained or one.encoded is not None))
    negatives = [s.name for s in samples if s.split == "train" and is_negative(s, context.config)][:MOST_NEGATIVES]
    num = min(NUM_FOLDS, len(pooled))
    return list(zip(_dealt(pooled, num), _dealt(negatives, num), strict=True))


def _dealt(keys: Sequence[str], num: int) -> list[set[str]]:
    return [set(keys[k::num]) for k in range(num)]


def known_by_folds(config: LoopConfig, run: RunFolder, labelers: Iterable[str]) -> dict[str, set[str]]:
    """By labeler that is a fold's detector, the classes on the labelled photos that it was trained on.

    The only photo of a class lies in some fold, whose detector knows nothing of it.
    """
    names = [name for name in labelers if name.startswith(FOLD)]
    if not names:
        return {}
    pooled = list(dict.fromkeys(map(_key, given_photos(config, run))))
    shown = [(_key(photo), photo.class_ids) for photo in labelled_samples(run.labelled, config.classes)]
    return {
        name: {config.classes[one] for key, ids in shown if key not in own for one in ids}
        for name, own in zip(names, _dealt(pooled, NUM_FOLDS), strict=True)
    }


def fold_fine_tunes(context: RoundContext, samples: Sequence[Sample], photos: Sequence[Sample]) -> list[FineTune]:
    """The detectors that judge photos: each is fine-tuned on the round's images but for a fold, from the same fold's
    detector of the promoted round. Writes the datasets of those that are missing.

    Args: see `collect_evidence`.

    Returns:
        One for each fold, those that are there included.
    """
    config, folder, best = context.config, context.folder, promoted_round(context.run)
    wanted: list[FineTune] = []
    folds = _folds(context, samples, photos)
    for number, (own, without) in enumerate(folds):
        images = [image for image in round_images(context, samples) if _key(image) not in own | without]
        pastes = round_pastes(context, images)  # of what is left: nothing of the fold's own photos
        workdir = folder.scratch / f"fold_{number}"
        if not folder.fold(number).is_file():
            shutil.rmtree(workdir, ignore_errors=True)
            write_dataset(workdir / "dataset", written(images, pastes), config.classes)
        continues = best is not None and best.fold(number).is_file()
        per_epoch = steps_per_epoch(len(images) + len(pastes), config.detector)
        epochs = min(config.detector.epochs, max(1, round(FOLD_STEPS / per_epoch)))
        wanted.append(
            FineTune(
                title=f"judging photos {number + 1}/{len(folds)}",
                base=config.detector.base_weights,
                start=best.fold(number) if best is not None and continues else None,
                dataset=workdir / "dataset",
                weights=folder.fold(number),
                settings=config.detector.model_copy(update={"epochs": epochs}),
                seed=derive_seed(config.seed, "fold", folder.index, number),
                workdir=workdir,
                class_map=None if continues else config.detector.class_map,
            )
        )
    return wanted


def _outlines(config: LoopConfig, samples: Sequence[Sample], photos: Sequence[Sample]) -> Mapping[str, Instances]:
    """The best outline of each photo's object by the photo's name: the given one, else the round's own where the photo
    was kept, else attention's.

    One instance, or none where nobody found the object.
    """
    given = {photo.name: largest_rare(photo.instances, config) for photo in photos if photo.encoded is not None}
    photos = [photo for photo in photos if photo.name not in given]
    if not photos:
        return given
    kept = {_key(sample): sample.instances for sample in samples if sample.is_photo and sample.kept}
    by_attention = attention_labeler(config).label([label_input(photo) for photo in photos])
    found = {}
    for photo, attention in zip(photos, by_attention, strict=True):
        class_id = config.classes.index(_rare_class(photo, config))
        options = [kept.get(_key(photo)), attention]
        instances = next((one for one in options if one is not None and class_id in one.class_ids), attention)
        own = np.flatnonzero(instances.class_ids == class_id)
        found[photo.name] = instances.subset(own[np.argsort(-instances.scores[own], kind="stable")][:1])
    return given | found


def _findings(
    context: RoundContext, judge: Labeler, photos: Sequence[Sample], outlines: Mapping[str, Instances], name: str
) -> Iterator[PhotoFinding]:
    config, rare_ids = context.config, [context.config.classes.index(one) for one in context.config.rare_classes]
    for photo in photos:
        outline = outlines[photo.name]
        (found,) = judge.label([LabelInput(photo.pixels())])
        agreement, counted = None, found
        if photo.encoded is not None:
            agreement = mean_agreement(found.subset(found.scores >= MIN_DETECTOR_SCORE), photo.instances)
            counted = without_others(found, photo.instances, outline)
        yield PhotoFinding(
            name=str(photo.provenance.get("photo", photo.name)),
            class_name=_rare_class(photo, config),
            judge=name,
            image=str(photo.image_path.relative_to(context.run.path)),
            found=found.to_json(),
            outline=outline.to_json(),
            agreement=agreement,
            **judge_photo(counted, outline, rare_ids),
        )


def _on_negatives(context: RoundContext, judge: Labeler, samples: Sequence[Sample]) -> Iterator[NegativeFinding]:
    for sample in samples:
        yield NegativeFinding(sample.name, _rare_score(context.config, judge, sample.pixels()), source_of(sample))


def _on_photos_without(context: RoundContext, judge: Labeler) -> Iterator[NegativeFinding]:
    if context.config.negatives is not None:
        for path in list_images(context.config.negatives, what="setting 'negatives':"):
            yield NegativeFinding(path.name, _rare_score(context.config, judge, read_image(path)), "photo")


def _rare_score(config: LoopConfig, judge: Labeler, image: np.ndarray) -> float:
    (found,) = judge.label([LabelInput(image)])
    rare = [config.classes.index(name) for name in config.rare_classes]
    return float(found.scores[np.isin(found.class_ids, rare)].max(initial=0))


def _rare_class(photo: Sample, config: LoopConfig) -> str:
    """The rare class that a photo shows; empty if its caption names none."""
    names = (phrase.class_name for phrase in photo.prompt.objects)
    return next((name for name in names if name in config.rare_classes), "")


def source_of(negative: Sample) -> str:
    """What evidence a generated image without the object is, see `NegativeFinding`: an empty scene is no thing."""
    return "other" if negative.prompt.attributes.get(OTHER) else "generated"


def is_negative(sample: Sample, config: LoopConfig) -> bool:
    """Whether a kept, generated image shows no rare object, by its prompt and by its labels."""
    shown = {phrase.class_name for phrase in sample.prompt.objects}
    shown |= {config.classes[class_id] for class_id in sample.class_ids}  # what an inpainted image was left with
    return sample.kept and not sample.is_photo and not shown & set(config.rare_classes)


def _key(sample: Sample) -> str:
    """What an image is known by: of a photo, also of one that came with labels, its digest, which is equal for the
    pool's copy and ours and under two names; of a generated image its name."""
    return sha256_of(sample.image_path) if sample.task in ("photo", "") else sample.name
