"""The five stages of a round: generate, label, write the dataset, fine-tune, decide.

A stage whose result is there returns it; a stage that was cut off runs again (generating resumes at the first
unfinished batch). Stages share files through the round's folder, and a `RoundContext`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bootstrap.checksums import note_finished
from bootstrap.context import RoundContext
from bootstrap.decisions import decide_by_photos, decide_first, decide_promotion
from bootstrap.disagreement import mean_agreement
from bootstrap.evidence import Evidence
from bootstrap.finetunes import FineTune, fine_tune_all
from bootstrap.given import without_labelled
from bootstrap.held_out import fold_fine_tunes, known_by_folds
from bootstrap.judging import judge_images
from bootstrap.labelers import (
    EncodedLabels,
    base_begins,
    detector_labeler,
    known_classes,
    label_samples,
    round_labelers,
)
from bootstrap.measures.round import flatten
from bootstrap.prompts import round_prompts
from bootstrap.row import AGREEMENT, BASE_AGREEMENT, IMAGE_AGREEMENT
from bootstrap.run_folder import RoundFolder, RunFolder, derive_seed, promoted_round, promoted_rounds
from bootstrap.shards import generate_and_label, label_in_round
from bootstrap.training_set import choose_validation, relabels_earlier, validation_samples
from bootstrap.variations import plan_round_variations, samples_to_vary, shown_prompt
from diffugen.diffusion.protocol import Pipeline
from diffugen.evaluation.detector import evaluate_detector
from diffugen.evaluation.metrics import label_quality
from diffugen.executor.run import discard_records
from diffugen.files import is_same_file, link_file, read_json, write_files, write_json
from diffugen.generation.batches import generate_batches
from diffugen.generation.photos import read_photos
from diffugen.generation.plan import Plan, plan_samples
from diffugen.generation.variations import Variation
from diffugen.images import index_map, png_bytes
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler
from diffugen.sample import Sample, read_samples, write_samples


@dataclass(frozen=True)
class Generated:
    """The images of a round before anything is decided about them.

    Attributes:
        samples: the generated ones in the order of the plan, then the photos of the pool.
        variations: by sample name, what variations were generated from.
        labels: by sample name, attention's labels; of the generated ones, until the round is labelled.
    """

    samples: list[Sample]
    variations: Mapping[str, Variation]
    labels: dict[str, EncodedLabels]


def generate(context: RoundContext, pipe: Pipeline | None) -> Generated:
    """Generate the round's images with heatmaps, label them by attention meanwhile, and read the pool's photos.

    Without a pipeline there are the photos alone.
    """
    if pipe is None:
        return Generated(read_pool(context, None), {}, {})
    config, plan = context.config, plan_round(context, model_name(context.run, pipe))
    labels: dict[str, EncodedLabels] = {}
    if context.folder.samples.is_file():  # labelled already: nothing but lost files is generated
        generate_batches(pipe, plan, config.generate)
    else:
        labels = generate_and_label(context, plan, pipe)
    photos = [] if config.pool is None else read_pool(context, pipe)
    return Generated([*plan.samples, *photos], plan.variations, labels)


def plan_round(context: RoundContext, model: str) -> Plan:
    """A round's images: one per prompt, then the variations. Each seed follows from the run's seed and its number."""
    config, folder = context.config, context.folder
    prompts = round_prompts(config, folder.index)
    parents = samples_to_vary(context.run, folder) if config.rounds.variations and folder.index else []
    variations = plan_round_variations(config, parents, folder.index)
    everything = [*prompts, *(variation.prompt for variation in variations)]
    return plan_samples(
        folder.path,
        config.classes,
        everything,
        [derive_seed(config.seed, "image", folder.index, number) for number in range(len(everything))],
        config.generate,
        model=model,
        variations=[*[None] * len(prompts), *variations],
        prefix=folder.prefix,
    )


def read_pool(context: RoundContext, pipe: Pipeline | None) -> list[Sample]:
    """The user's own photos with their attention, to be labelled and filtered like generated images.

    The first round reads them; later ones share its files, but not those of the validation split. A round that trains
    on given labels alone takes none.
    """
    pool, first, folder = context.config.pool, context.run.round(0), context.folder
    assert pool is not None
    attention = context.config.generate.attention.model_copy(update={"presence": pool.presence})
    model = None if pipe is None else model_name(context.run, pipe)
    photos = read_photos(pipe, pool.folder, pool.prompts, attention, first.path, model=model)
    if pipe is None:
        photos = [] if context.labeler == "given" else without_labelled(photos, context.config, context.run)
    if folder != first:
        frozen = {sample.image_path.stem for sample in validation_samples(context.run)}
        photos = [photo for photo in photos if photo.name not in frozen]
    named = [replace(photo, name=f"{folder.prefix}{photo.name}") for photo in photos]
    return named if folder == first else [_linked(photo, folder) for photo in named]


def model_name(run: RunFolder, pipe: Pipeline) -> str:
    """What is recorded as a generated image's model."""
    return run.name_of_model(str(pipe.name_or_path))


def _linked(photo: Sample, folder: RoundFolder) -> Sample:
    sources = [photo.image_path, *([photo.heatmap_path] if photo.heatmap_path else [])]
    image, *heatmaps = (folder.path / path.parent.name / path.name for path in sources)
    for source, target in zip(sources, [image, *heatmaps], strict=True):
        if not is_same_file(source, target):
            link_file(source, target)
    return replace(photo, image=image, heatmap_path=next(iter(heatmaps), None))


def label(context: RoundContext, generated: Generated) -> list[Sample]:
    """Label the round's images and decide which are kept; re-label those of earlier rounds, see `relabels_earlier`.

    Writes masks/, `samples.jsonl` and `relabelled_<round>.jsonl`. In round 0 a share of the kept samples becomes the
    validation split.
    """
    config, folder = context.config, context.folder
    labelers = round_labelers(config, context.run, with_detector=context.labeler == "detector")
    if folder.samples.is_file():
        samples = read_samples(folder.samples)
        write_masks(folder, [sample for sample in samples if not folder.mask_of(sample).is_file()])
    else:
        samples = judge(context, generated, labelers)
        if folder.index == 0 and context.labeler != "given":
            rare_ids = [config.classes.index(name) for name in config.rare_classes]
            samples = choose_validation(samples, rare_ids, config.rounds.val_fraction, config.seed)
        write_masks(folder, samples)
        write_samples(folder.samples, samples)  # last: it says that the round is labelled
        note_finished(folder, folder.masks, folder.samples)
    discard_records(folder.shards)
    if relabels_earlier(context):
        for earlier in context.run.complete_rounds():
            relabel(context, earlier, labelers)
        discard_records(folder.shards)
    return samples


def write_masks(folder: RoundFolder, samples: Sequence[Sample]) -> None:
    """Write the index maps of samples."""
    for start in range(0, len(samples), _MASKS_AT_ONCE):
        chunk = samples[start : start + _MASKS_AT_ONCE]
        write_files({folder.mask_of(sample): png_bytes(index_map(sample.instances)) for sample in chunk})


_MASKS_AT_ONCE = 64


def judge(context: RoundContext, generated: Generated, labelers: Mapping[str, Labeler]) -> list[Sample]:
    """Have every labeler label a round's images, and decide which are kept."""
    labels = label_in_round(context, generated.samples, labelers, "labelling", generated.labels)
    shown = [shown_prompt(sample, generated.variations.get(sample.name)) for sample in generated.samples]
    known = known_classes(labelers) | known_by_folds(context.config, context.run, labelers)
    return judge_images(generated.samples, labels, context.config, shown=shown, known_classes=known)


def relabel(context: RoundContext, earlier: RoundFolder, labelers: Mapping[str, Labeler]) -> None:
    """Re-label an earlier round's samples by this round's labelers; writes `relabelled_<round>.jsonl`.

    Validation samples and variations stay as they are, and so do photos, which every round labels anyway. Attention's
    labels are reused.
    """
    path = context.folder.relabelled(earlier.index)
    if path.is_file():
        return
    samples = [sample for sample in read_samples(earlier.samples) if sample.task == "txt2img" and sample.split != "val"]
    known = {sample.name: {"attention": sample.encoded_labels["attention"]} for sample in samples}
    labels = label_in_round(context, samples, labelers, f"re-labelling {earlier.path.name}", known)
    judged = judge_images(samples, labels, context.config, known_classes=known_classes(labelers))
    write_samples(path, judged)
    note_finished(context.folder, path)


def fine_tune(context: RoundContext, samples: Sequence[Sample], photos: Sequence[Sample]) -> None:
    """Fine-tune the round's detector, and those that judge the photos it is trained on.

    Args: see `bootstrap.held_out.collect_evidence`.
    """
    judges = [] if context.folder.evidence.is_file() else fold_fine_tunes(context, samples, photos)
    fine_tune_all(context, [_round_fine_tune(context), *judges])


def _round_fine_tune(context: RoundContext) -> FineTune:
    """The round's detector: the promoted checkpoint, else the base, fine-tuned on the round's dataset."""
    config, folder, best = context.config, context.folder, promoted_round(context.run)
    return FineTune(
        title="",
        base=config.detector.base_weights,
        start=None if best is None else best.weights,
        dataset=folder.dataset,
        weights=folder.weights,
        settings=config.detector,
        seed=derive_seed(config.seed, "detector", folder.index),
        workdir=folder.scratch / "detector",
        class_map=config.detector.class_map if best is None else None,
    )


def decide(context: RoundContext, samples: Sequence[Sample]) -> None:
    """Decide whether the new checkpoint is promoted; writes `validation.json` and `decision.json`.

    Args:
        context: the round's.
        samples: its own, labelled; without a kept one there is no new checkpoint.
    """
    folder, run = context.folder, context.run
    if folder.decision.is_file():
        return
    labelled_by = {"labels_from": context.labeler, "labels_why": context.labeler_reason}
    if not trains_on(context, samples):
        nothing = {"promoted": False, "why": "it kept no image, so there was nothing to learn"}
        write_json(folder.decision, labelled_by | nothing)
        note_finished(folder, folder.decision)
        return
    scores, agreement = validation_scores(context, folder.weights)
    write_json(folder.validation, agreement)
    promoted = promoted_rounds(run)
    earlier = {other.index: read_json(other.validation) for other in promoted}
    if not earlier:
        decision = decide_first(scores)
    else:
        decision = decide_promotion(agreement, earlier, allow_chance=context.config.model is not None)
    if decision["promoted"]:
        by_photo = {other.index: Evidence.read(other.evidence).by_photo() for other in promoted}
        decision = decide_by_photos(decision, Evidence.read(folder.evidence).by_photo(), by_photo)
    write_json(folder.decision, {**labelled_by, **scores, **decision})
    note_finished(folder, folder.validation, folder.decision)


def trains_on(context: RoundContext, samples: Sequence[Sample]) -> bool:
    """Whether a round has anything new to learn from."""
    return context.labeler == "given" or any(sample.split == "train" for sample in samples)


def validation_scores(context: RoundContext, weights: Path) -> tuple[dict[str, float], dict[str, float]]:
    """How good a checkpoint is on the frozen validation split: flat metrics, and its agreement by sample.

    Where photos came with labels, these are the validation: cross-fitted detectors have judged them already.
    """
    config, detector = context.config, context.config.detector
    given = Evidence.read(context.folder.evidence).agreement_by_photo()
    if given:
        return {IMAGE_AGREEMENT: sum(given.values()) / len(given)}, given
    measured = evaluate_detector(
        weights,
        context.run.round(0).dataset,
        config.classes,
        split="val",
        imgsz=detector.imgsz,
        device=detector.first_device,
    )
    agreement, by_sample = validation_agreement(validation_samples(context.run), detector_labeler(weights, config))
    scores = {AGREEMENT: agreement, IMAGE_AGREEMENT: sum(by_sample.values()) / len(by_sample)}
    if base_begins(config):
        scores[BASE_AGREEMENT] = mirrored_agreement(validation_samples(context.run))
    return {**flatten(measured, "val", config.rare_classes), **scores}, by_sample


def mirrored_agreement(samples: Sequence[Sample]) -> float:
    """How far the base detector's own labels of mirrored photos agree with the labels that they have, by image.

    A detector that agrees less has changed by more than the base differs from itself.
    """
    return float(np.mean([mean_agreement(sample.labels("flipped"), sample.instances) for sample in samples]))


def validation_agreement(samples: Sequence[Sample], labeler: Labeler) -> tuple[float, dict[str, float]]:
    """How far a labeler agrees with the labels that validation samples have.

    Returns:
        The mean IoU over all objects that have a label, a missed one counting 0; and, by sample, the mean IoU over all
        objects that either found, one that only one of them found counting 0.
    """
    labels = label_samples(samples, {labeler.name: labeler}, "validation")
    found = [Instances.from_json(encoded[labeler.name]) for encoded in labels]
    pairs = list(zip(found, (sample.instances for sample in samples), strict=True))
    by_sample = {sample.name: mean_agreement(*pair) for sample, pair in zip(samples, pairs, strict=True)}
    return float(label_quality(pairs)["mean_iou"] or 0.0), by_sample
