"""Measuring a round after its decisions. No decision reads these measures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from bootstrap.checksums import complete_round
from bootstrap.config import EvaluationConfig, LoopConfig
from bootstrap.evidence import Evidence
from bootstrap.held_out import ObjectPhotos
from bootstrap.labelers import attention_labeler, detector_labeler
from bootstrap.measures.balance import balance
from bootstrap.measures.fidelity import fid_and_kid
from bootstrap.measures.images import measure_sets, stack
from bootstrap.row import Row
from bootstrap.run_folder import RoundFolder
from bootstrap.verdict import judge_round
from diffugen.attention.extract import read_attention
from diffugen.datasets.folder import read_dataset
from diffugen.datasets.near_duplicates import near_duplicates
from diffugen.detector.model import embed, load_detector
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.evaluation.confusion import ConfusionMatrix
from diffugen.evaluation.detector import evaluate_groups
from diffugen.evaluation.metrics import label_quality
from diffugen.files import read_json, read_jsonl
from diffugen.images import list_images, read_image
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.prompts.prompt import ObjectPhrase, Prompt, class_words
from diffugen.sample import Sample, read_samples

logger = logging.getLogger(__name__)

Scores = dict[str, dict[str, float | None]]
"""What `evaluate_detector` returns: class name or "mean" -> metric -> value."""

Embed = Callable[[Iterable[np.ndarray]], np.ndarray]
"""From images to their features [n, d]."""

NUM_REFERENCE_IMAGES = 200
"""Images of the evaluation set, from its start, that generated ones are compared with."""
NUM_ATTENTION_IMAGES = 24
"""Images of the evaluation set, from its start, on which attention's labels are measured."""
_BATCH = 32


def report_round(
    folder: RoundFolder, config: LoopConfig, pipe: Pipeline | None, photos: Sequence[ObjectPhotos] = ()
) -> None:
    """Measure a round after its decision, and complete it by writing `metrics.json`.

    The evaluation set's ground truth is read here and nowhere else; its measures begin with "test/".

    Args:
        folder: the round's, with its `decision.json`.
        config: the run's settings.
        pipe: the pipeline, whose attention is measured on the evaluation set; None: the images are photos alone.
        photos: of the concepts.
    """
    samples = read_samples(folder.samples)
    with folder.timed("evaluate"):
        measured = {"balance": balance(samples)}
        if pipe is not None:
            measured |= measure_images(samples, config, [one.folder for one in photos])
        if config.evaluation is not None:
            measured |= measure_truth(config, config.evaluation, pipe, folder)
    decision, seconds = read_json(folder.decision), read_json(folder.seconds)
    evidence = Evidence.read(folder.evidence).measures()
    failed = dict(one.failure for one in photos if one.failure is not None)
    concepts = {"failed_concepts": failed} if failed else {}
    row = {
        "round": folder.index,
        **concepts,
        **summarise_samples(samples),
        **decision,
        **evidence,
        **measured,
        "seconds": seconds,
    }
    complete_round(folder, cast(Row, {**row, "verdict": judge_round(row, config.detector.epochs).to_json()}))


def summarise_samples(samples: Sequence[Sample]) -> dict[str, Any]:
    """A round's counts by outcome and reason, whose labels its kept images have, and the detector's mean agreement with
    attention or its mirrored view."""
    outcomes = Counter(sample.outcome for sample in samples)
    agreements = [sample.agreement for sample in samples if sample.agreement is not None]
    labelers = sorted({sample.labeler for sample in samples if sample.kept})
    return {
        "labeler": " and ".join(labelers) or "none",
        "num_generated": len(samples),
        "num_photos": sum(sample.is_photo for sample in samples),
        "num_variations": sum(sample.is_variation for sample in samples),
        "num_kept": outcomes["keep"],
        "num_rejected": outcomes["reject"],
        "num_review": outcomes["review"],
        "rejected": dict(sorted(Counter(sample.reason for sample in samples if sample.outcome == "reject").items())),
        "label_agreement": sum(agreements) / len(agreements) if agreements else None,
    }


def measure_images(samples: Sequence[Sample], config: LoopConfig, photos: Sequence[Path]) -> dict[str, Any]:
    """Quality and diversity of a round's generated images, of the kept ones, and of those with a rare object.

    Returns:
        "images/<measure>" for all, "images/kept/<measure>" and "images/rare/<measure>", see `measure_sets`, and the
        share of images that nearly repeat an earlier one, "near_duplicate_fraction". All are
        compared with the evaluation set's images where there is one ("test/images/kernel_distance", and "fid" and
        "kid" where Inception's weights are at hand), those with a
        rare object with the concept's photos ("images/rare/kernel_distance_photos").
    """
    drawn = [sample for sample in samples if not sample.is_photo]
    features_of = _embedder(config)
    features = features_of(sample.pixels() for sample in drawn)
    references = {"photos": features_of(_photos(photos))}
    rare = [any(phrase.class_name in config.rare_classes for phrase in s.prompt.objects) for s in drawn]
    measured: dict[str, Any] = {}
    for prefix, chosen in (("", [True] * len(drawn)), ("kept/", [s.kept for s in drawn]), ("rare/", rare)):
        rows = np.flatnonzero(chosen)
        compared = references if prefix == "rare/" and len(references["photos"]) else {}
        values = measure_sets(features[rows], compared)
        if len(rows) > 1:
            twins = near_duplicates(drawn[row].pixels() for row in rows)
            values["near_duplicate_fraction"] = sum(twin is not None for twin in twins) / len(twins)
        measured |= {f"images/{prefix}{name}": value for name, value in values.items()}
    if config.evaluation is not None:
        distances = _distances(drawn, features, features_of, config.evaluation)
        measured |= {f"test/images/{name}": value for name, value in distances.items()}
    return measured


def _distances(
    drawn: Sequence[Sample], features: np.ndarray, features_of: Embed, evaluation: EvaluationConfig
) -> dict[str, float | None]:
    """How far generated images are from those of the evaluation set."""
    reference = [image for _, image, _ in _evaluation_images(evaluation, NUM_REFERENCE_IMAGES)]
    distance = measure_sets(features, {"evaluation": features_of(reference)})["kernel_distance_evaluation"]
    if evaluation.inception_weights is None or min(len(drawn), len(reference)) < 2:
        return {"kernel_distance": distance}
    images = [sample.pixels() for sample in drawn[:NUM_REFERENCE_IMAGES]]
    return {"kernel_distance": distance, **fid_and_kid(images, reference, evaluation.inception_weights)}


def measure_truth(
    config: LoopConfig, evaluation: EvaluationConfig, pipe: Pipeline | None, folder: RoundFolder
) -> dict[str, Any]:
    """What the evaluation set's truth says about a round's labels and its detector.

    Returns:
        "test/..." as `flatten` has it, for the round's checkpoint;
        "test/by_attribute": slot -> value -> scores, where the dataset's captions.jsonl records attributes;
        "test/labels/detector/...": the checkpoint's labels at the threshold at which it would label the next round;
        "test/confusion": of these labels, see `ConfusionMatrix`;
        "test/labels/attention/...": attention's labels, in round 0 (the model stays the same).
    """
    measured: dict[str, Any] = {}
    if folder.index == 0 and pipe is not None:
        measured |= _quality(_attention_pairs(config, evaluation, pipe), "attention")
    if not folder.weights.is_file():
        return measured
    attributes = attributes_of(evaluation.dataset)
    groups: dict[tuple[str, str], set[str]] = {}
    for name, values in attributes.items():
        for slot, value in values.items():
            groups.setdefault((slot, value), set()).add(name)
    tables = evaluate_groups(
        folder.weights, evaluation.dataset, config.classes, groups, split=evaluation.split,
        imgsz=config.detector.imgsz, device=config.detector.first_device,
    )  # fmt: skip
    measured |= flatten(tables.pop(None), "test", config.rare_classes)
    by_attribute: dict[str, dict[str, Any]] = {}
    for (slot, value), scores in sorted((group, scores) for group, scores in tables.items() if group):
        row = {"num_images": len(groups[slot, value]), **flatten(scores, "", config.rare_classes)}
        wanted = ("num_images", "mask_map50", "mask_map50_95", "mean/mask_map50_95")
        by_attribute.setdefault(slot, {})[value] = {name: row[name] for name in wanted if name in row}
    if by_attribute:
        measured["test/by_attribute"] = by_attribute
    confusion = ConfusionMatrix(len(config.classes))
    pairs = _counted(_detector_pairs(config, evaluation, folder.weights), confusion)
    measured |= _quality(pairs, "detector")
    return measured | {"test/confusion": confusion.counts.tolist()}


def flatten(scores: Scores, prefix: str, rare_classes: Sequence[str]) -> dict[str, float]:
    """`evaluate_detector`'s result as flat keys; what could not be measured is left out.

    `<prefix>/<metric>` is for the rare classes (their mean, where there are several),
    `<prefix>/<class>/<metric>` for each class, `<prefix>/mean/<metric>` for the mean over all.
    """
    start = f"{prefix}/" if prefix else ""
    flat: dict[str, float] = {}
    for metric in scores["mean"]:
        rare = [value for name in rare_classes if (value := scores[name][metric]) is not None]
        if rare:
            flat[f"{start}{metric}"] = sum(rare) / len(rare)
    for name, values in scores.items():
        flat |= {f"{start}{name}/{metric}": value for metric, value in values.items() if value is not None}
    return flat


def attributes_of(dataset: Path) -> dict[str, dict[str, str]]:
    """The attributes of a dataset's images: image name -> attribute -> value.

    It is read from the dataset's captions.jsonl, a line per image: {"name": ..., "attributes": {...}, ...}.
    """
    path = dataset / "captions.jsonl"
    rows = read_jsonl(path) if path.is_file() else []
    return {row["name"]: row["attributes"] for row in rows if "attributes" in row}


def _quality(pairs: Iterable[tuple[Instances, Instances]], labeler: str) -> dict[str, float]:
    quality = label_quality(pairs)
    wanted = ("mean_iou", "precision", "recall")
    return {f"test/labels/{labeler}/{name}": quality[name] for name in wanted if quality[name] is not None}


def _counted(
    pairs: Iterable[tuple[Instances, Instances]], confusion: ConfusionMatrix
) -> Iterator[tuple[Instances, Instances]]:
    """The same pairs, each of which is counted on its way."""
    for found, truth in pairs:
        confusion.add(found, truth)
        yield found, truth


def _detector_pairs(
    config: LoopConfig, evaluation: EvaluationConfig, weights: Path
) -> Iterator[tuple[Instances, Instances]]:
    labeler = detector_labeler(weights, config)
    images = read_dataset(evaluation.dataset, evaluation.split, config.classes)
    while batch := list(islice(images, _BATCH)):
        found = labeler.label([LabelInput(image) for _, image, _ in batch])
        yield from zip(found, (truth for _, _, truth in batch), strict=True)


def _attention_pairs(
    config: LoopConfig, evaluation: EvaluationConfig, pipe: Pipeline
) -> Iterator[tuple[Instances, Instances]]:
    """Attention's labels of real images, each captioned with the classes that it truly shows."""
    assert config.prompts is not None
    labeler, words = attention_labeler(config), class_words(config.prompts)
    for _, image, truth in _evaluation_images(evaluation, NUM_ATTENTION_IMAGES, config.classes):
        shown = [config.classes[class_id] for class_id in truth.class_ids if config.classes[class_id] in words]
        text = "a photo of " + " and ".join(f"a {words[name]}" for name in shown)
        prompt = Prompt(text, tuple(ObjectPhrase(words[name], name) for name in shown), template=text)
        found = Instances.empty(truth.size_hw)
        if shown:
            try:
                (attention,) = read_attention(pipe, [image], [prompt], config.generate.attention)
            except UserError as error:  # so many objects that their caption would be cut
                logger.debug("an evaluation image is left out of attention's: %s", error)
                continue
            (found,) = labeler.label([LabelInput(image, prompt, attention)])
        yield found, truth


def _evaluation_images(
    evaluation: EvaluationConfig, num: int, class_names: Sequence[str] | None = None
) -> Iterator[tuple[str, np.ndarray, Instances]]:
    return islice(read_dataset(evaluation.dataset, evaluation.split, class_names), num)


def _embedder(config: LoopConfig) -> Embed:
    """The base detector as a function from images, of which a few at a time are in memory, to their features."""
    base = load_detector(config.detector.base_weights)

    def features_of(images: Iterable[np.ndarray]) -> np.ndarray:
        features: list[np.ndarray] = []
        images = iter(images)
        while batch := list(islice(images, _BATCH)):
            features += list(embed(base, batch, imgsz=config.detector.imgsz, device=config.detector.first_device))
        return stack(features)

    return features_of


def _photos(folders: Sequence[Path]) -> Iterator[np.ndarray]:
    try:
        yield from (read_image(path) for folder in folders for path in list_images(folder))
    except UserError as error:  # they were there when the concept was learned; the round can do without
        logger.warning("generated images are not compared with the concept's photos: %s", error)
