"""How good a detector, or a set of labels, is on a dataset with truth, in one JSON value (`diffugen evaluate`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.class_maps import class_index, mapped_classes, renumbered
from diffugen.datasets.folder import (
    check_split,
    class_names_of,
    entries_of,
    own_splits,
    read_dataset,
    read_entries,
    read_labels,
)
from diffugen.detector.model import load_detector
from diffugen.errors import UserError
from diffugen.evaluation.detector import detector_pairs
from diffugen.evaluation.metrics import LabelTotals, average_precision_of
from diffugen.evaluation.pairing import same_images
from diffugen.instances import Instances
from diffugen.progress import progress_bar

logger = logging.getLogger(__name__)


def score_detector(
    weights: Path,
    truth: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    class_names: Sequence[str] | None = None,
    class_map: Mapping[str, str] | None = None,
    score_threshold: float = 0.25,
    imgsz: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a detector on a labelled dataset.

    Args:
        weights: as for `load_detector`.
        truth: the dataset, as for `read_dataset`.
        split: of the dataset; None: its "test", else "val", else whichever it has.
        images: of a COCO JSON file: the folder of its images.
        class_names: the classes to measure; None: those of the dataset that the detector knows.
        class_map: from the detector's class names to the dataset's.
        score_threshold: what counts as found, for precision, recall and IoU; average precision takes all.
        imgsz: side that images are scaled to; None means what the detector was trained at.
        device: as in `DetectorConfig`.

    Returns:
        "average_precision" (see `average_precision`), "labels" (see `label_quality`), and what was measured.

    Raises:
        UserError: the dataset or the weights are missing or broken, or have no class in common.
    """
    part = _split_of(truth, split)
    yolo = load_detector(weights)
    known = class_names_of(truth, class_names)
    class_index(yolo.names, known, class_map)  # a wrong map is reported before any work
    reachable = mapped_classes(yolo.names, None, {}, str(weights)) + list((class_map or {}).values())
    names = _shared_classes(class_names, reachable, known, str(weights), truth)
    rows = progress_bar(read_dataset(truth, part, names, images=images), desc="measuring", unit="image")
    options: dict[str, Any] = {"class_names": known, "class_map": class_map, "imgsz": imgsz, "device": device}
    all_pairs = detector_pairs(yolo, ((image, true) for _, image, true in rows), **options)
    pairs = ((renumbered(found, known, names), true) for found, true in all_pairs)
    measured = {"weights": str(weights), "truth": str(truth), "split": part}
    return measured | _scores(pairs, names, score_threshold)


def score_labels(
    labels: Path,
    truth: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
) -> dict[str, Any]:
    """Measure the labels of a dataset against the truth of another one that has the same images (see `same_images`).

    Args:
        labels: the dataset to judge; its splits do not matter.
        truth, split, images, class_names, score_threshold: as for `score_detector`; images that only one of the
            two has are not compared (the count of those without labels is in "num_unlabelled").

    Raises:
        UserError: a dataset is missing or broken, or they have no class or no image in common.
    """
    part = _split_of(truth, split)
    known = [class_names_of(dataset, class_names) for dataset in (labels, truth)]
    names = _shared_classes(class_names, known[0], known[1], str(labels), truth)
    found: dict[str, dict[str, Any]] = {}
    for own in sorted(_splits_of(labels), key=lambda own: own == part):  # the same split, last, has the say
        entries = list(entries_of(labels, own, names, images=images if labels.is_file() else None))
        rows = progress_bar(read_labels(entries), desc=f"reading {own}".strip(), unit="image", total=len(entries))
        for entry, instances in zip(entries, rows, strict=True):
            found[entry.key] = instances.to_json()
    truths = list(entries_of(truth, part, names, images=images))
    same = same_images(found, [entry.key for entry in truths])

    def pairs() -> Iterator[tuple[Instances, Instances]]:
        rows = progress_bar(read_entries(truths), desc="measuring", unit="image", total=len(truths))
        for entry, (name, _, true) in zip(truths, rows, strict=True):
            if entry.key not in same:
                continue
            instances = Instances.from_json(found[same[entry.key]])
            if instances.size_hw != true.size_hw:
                raise UserError(f"image {name!r} is {instances.size_hw} in {labels}, but {true.size_hw} in {truth}")
            yield instances, true

    scores = _scores(pairs(), names, score_threshold)
    if not scores["num_images"]:
        raise UserError(
            f"{labels} has none of the images of {truth}, split {part!r}: no path is the same, nor a name that only "
            "one image has; give labels of these images"
        )
    unlabelled = len(truths) - len(same)
    if unlabelled:
        logger.warning("%d of %d images of %s have no labels and were not measured", unlabelled, len(truths), truth)
    measured = {"labels_of": str(labels), "truth": str(truth), "split": part, "num_unlabelled": unlabelled}
    return measured | scores


def table_of(scores: Mapping[str, Any]) -> str:
    """The figures as text: a line per class that has any instance, and one for all together."""
    columns = ("mask_map50", "mask_map50_95", "box_map50", "box_map50_95", "mean_iou", "precision", "recall")
    precision, quality = scores["average_precision"], scores["labels"]
    rows = {"all": precision["mean"] | quality}
    rows |= {name: precision[name] | quality["classes"].get(name, {}) for name in scores["classes"]}
    width = max(len(name) for name in rows)
    lines = [" ".join([" " * width, *(f"{column:>13}" for column in columns), f"{'true':>7} {'found':>7}"])]
    for name, row in rows.items():
        if row.get("num_truth") or row.get("num_pred") or name == "all":
            values = ("-" if row.get(column) is None else f"{row[column]:.3f}" for column in columns)
            counts = f"{row['num_truth']:7d} {row['num_pred']:7d}"
            lines.append(" ".join([f"{name:<{width}}", *(f"{value:>13}" for value in values), counts]))
    return "\n".join(lines)


def _scores(
    pairs: Iterable[tuple[Instances, Instances]], class_names: Sequence[str], score_threshold: float
) -> dict[str, Any]:
    totals, num_images = LabelTotals(), 0

    def counted() -> Iterator[tuple[Instances, Instances]]:
        nonlocal num_images
        for pred, true in pairs:
            num_images += 1
            totals.add(_found(pred, score_threshold), true)
            yield pred, true

    precision = average_precision_of(counted(), class_names)
    return {
        "num_images": num_images,
        "classes": list(class_names),
        "score_threshold": score_threshold,
        "average_precision": precision,
        "labels": totals.quality(class_names),
    }


def _found(pred: Instances, score_threshold: float) -> Instances:
    """What a user would see: the strong ones, each box once, as its likeliest class."""
    order = np.argsort(-pred.scores, kind="stable")
    order = order[pred.scores[order] >= score_threshold]
    seen: set[tuple[bytes, bytes]] = set()
    kept = []
    for index in order:
        key = (pred.xyxy[index].tobytes(), np.packbits(pred.masks[index]).tobytes())
        if key not in seen:
            seen.add(key)
            kept.append(index)
    return pred.subset(np.array(kept, np.int64))


def _shared_classes(
    wanted: Sequence[str] | None, reachable: Sequence[str], known: Sequence[str], what: str, truth: Path
) -> list[str]:
    for name in wanted or ():
        if name not in known or name not in reachable:
            where = truth if name not in known else what
            raise UserError(f"--classes: {where} has no class {name!r}; measure classes that both sides have")
    names = list(wanted or (name for name in known if name in reachable))
    if not names:
        raise UserError(
            f"{what} and {truth} have no class in common; give a class map (--map MODEL=DATASET), or for labels rename "
            "the classes"
        )
    if not wanted:
        _tell_unmeasured(f"{truth} has no such class", reachable, known)
        _tell_unmeasured(f"{what} has no such class", known, reachable)
    return names


def _tell_unmeasured(why: str, names: Sequence[str], others: Sequence[str]) -> None:
    left_out = [name for name in dict.fromkeys(names) if name not in others]
    if left_out:
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        logger.warning("not measured, as %s: %s%s", why, ", ".join(left_out[:5]), more)


def _splits_of(dataset: Path) -> list[str]:
    return own_splits(dataset) if dataset.is_dir() else [""]


def _split_of(truth: Path, split: str | None) -> str:
    check_split(truth, split)
    splits = _splits_of(truth)
    return split or next((name for name in ("test", "val", *splits) if name in splits), "")
