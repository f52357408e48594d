"""How good labels and detectors are, measured against instances that are known to be true."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .config import ConfigError
from .dataset import class_names_of, read_dataset
from .detector import load_detector, predict
from .formats import coco
from .instances import Instances

AP_SCORE_THRESHOLD = 0.001  # average precision needs the weak detections too
_MAX_DETECTIONS = 100  # per image, as COCO counts

Group = TypeVar("Group", bound=Hashable)


def mask_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of bool masks [n, H, W] with [m, H, W]: float32 [n, m], 0 for empty ones."""
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks of {a.shape[1:]} and {b.shape[1:]} pixels cannot be compared; bring them to one size")
    flat_a, flat_b = (masks.reshape(len(masks), int(np.prod(masks.shape[1:]))).astype(np.float32) for masks in (a, b))
    intersection = flat_a @ flat_b.T
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None] - intersection
    return intersection / np.maximum(union, 1)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of xyxy boxes [n, 4] with [m, 4]: float32 [n, m], 0 for empty ones."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (high - low).clip(0).prod(axis=2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None] - intersection
    return (intersection / np.where(union > 0, union, 1)).astype(np.float32)


@dataclass(frozen=True)
class MatchResult:
    """Which predicted instance is which true one.

    Attributes:
        pairs: int64 [k, 2], indices (predicted, true), every instance at most once, by falling IoU.
        ious: float32 [k], the pairs' mask IoU.
        num_pred: number of predicted instances.
        num_truth: number of true instances.
    """

    pairs: np.ndarray
    ious: np.ndarray
    num_pred: int
    num_truth: int

    @property
    def unmatched_pred(self) -> np.ndarray:
        """Indices of the predicted instances without a partner."""
        return np.setdiff1d(np.arange(self.num_pred), self.pairs[:, 0])

    @property
    def unmatched_truth(self) -> np.ndarray:
        """Indices of the true instances without a partner."""
        return np.setdiff1d(np.arange(self.num_truth), self.pairs[:, 1])


def match_instances(
    pred: Instances, truth: Instances, iou_threshold: float = 0.5, same_class: bool = True
) -> MatchResult:
    """Pair predicted with true instances, the highest mask IoU first.

    Args:
        pred, truth: of one image.
        iou_threshold: pairs below this are none; pairs without any overlap never are.
        same_class: pair only instances of one class.
    """
    ious = mask_iou(pred.masks, truth.masks)
    allowed = (ious >= iou_threshold) & (ious > 0)
    if same_class:
        allowed &= pred.class_ids[:, None] == truth.class_ids[None]
    candidates = np.argwhere(allowed)
    order = np.argsort(-ious[allowed], kind="stable")
    pairs: list[tuple[int, int]] = []
    used_pred, used_truth = set(), set()
    for i, j in candidates[order].tolist():
        if i not in used_pred and j not in used_truth:
            pairs.append((i, j))
            used_pred.add(i)
            used_truth.add(j)
    index = np.array(pairs, np.int64).reshape(-1, 2)
    return MatchResult(index, ious[index[:, 0], index[:, 1]], len(pred), len(truth))


def label_quality(
    pairs: Iterable[tuple[Instances, Instances]], class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Compare labels with the truth, image by image.

    Args:
        pairs: (labels, truth) of each image.
        class_names: keys of the figures per class; without them the class ids, as strings.

    Returns:
        "mean_iou" (over true instances; a missed one counts 0), "precision" and "recall" at mask IoU 0.5,
        "num_truth", "num_pred"; the same again for each class in "classes". What has no instances to divide
        by is None.
    """
    totals = LabelTotals()
    for pred, truth in pairs:
        totals.add(pred, truth)
    return totals.quality(class_names)


class LabelTotals:
    """The sums behind `label_quality`, for those who see the images of a dataset only once."""

    def __init__(self) -> None:
        self._rows: dict[int, list[float]] = {}  # class -> [sum of IoU, matched at 0.5, predicted, true]

    def add(self, pred: Instances, truth: Instances) -> None:
        """Count one image."""
        any_overlap = match_instances(pred, truth, iou_threshold=0.0)
        for class_id in np.union1d(pred.class_ids, truth.class_ids).tolist():
            ious = any_overlap.ious[truth.class_ids[any_overlap.pairs[:, 1]] == class_id]
            counts = (pred.class_ids == class_id).sum(), (truth.class_ids == class_id).sum()
            row = self._rows.setdefault(class_id, [0.0, 0.0, 0.0, 0.0])
            for i, value in enumerate((ious.sum(), (ious >= 0.5).sum(), *counts)):
                row[i] += float(value)

    def quality(self, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        """The figures, as `label_quality` returns them."""
        everything = np.array(list(self._rows.values())).reshape(-1, 4).sum(axis=0).tolist()
        names = {i: class_names[i] if class_names else str(i) for i in self._rows}
        classes = {names[i]: _quality(self._rows[i]) for i in sorted(self._rows)}
        return _quality(everything) | {"classes": classes}


def _quality(row: Sequence[float]) -> dict[str, float | int | None]:
    iou_sum, matched, num_pred, num_truth = row
    return {
        "mean_iou": iou_sum / num_truth if num_truth else None,
        "precision": matched / num_pred if num_pred else None,
        "recall": matched / num_truth if num_truth else None,
        "num_truth": int(num_truth),
        "num_pred": int(num_pred),
    }


def average_precision(
    predictions: Iterable[Instances], truths: Iterable[Instances], class_names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """COCO's average precision, by pycocotools, on masks and boxes at full size.

    Args:
        predictions, truths: aligned, one per image; taken one at a time.
        class_names: what the class ids index.

    Returns:
        "mean" (over the classes that have true instances) and each class name -> "mask_map50",
        "mask_map50_95", "box_map50", "box_map50_95"; None where there is no true instance.
    """
    return average_precision_of(zip(predictions, truths, strict=True), class_names)


def average_precision_of(
    pairs: Iterable[tuple[Instances, Instances]], class_names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Like `average_precision`, of pairs (predicted, true)."""
    return _table(*_documents(pairs, class_names), class_names)


def _documents(
    pairs: Iterable[tuple[Instances, Instances]], class_names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """COCO documents of what is true and what was found; images are numbered from 1."""
    found, true = _document(class_names), _document(class_names)
    for image_id, (pred, truth) in enumerate(pairs, start=1):
        for document, instances in ((found, pred), (true, truth)):
            height, width = instances.size_hw
            document["images"].append({"id": image_id, "height": height, "width": width})
            document["annotations"] += _annotations(instances, image_id, len(document["annotations"]) + 1)
    return true, found


def _table(
    true: dict[str, Any], found: dict[str, Any], class_names: Sequence[str], image_ids: Sequence[int] | None = None
) -> dict[str, dict[str, float | None]]:
    """Average precision by class, over some of the images or over all."""
    measured = {
        kind: _precision(true, found, iou_type, image_ids) for kind, iou_type in (("mask", "segm"), ("box", "bbox"))
    }
    table: dict[str, dict[str, float | None]] = {name: {} for name in ("mean", *class_names)}
    for kind, precision in measured.items():
        per_class = {
            f"{kind}_map50": precision[0].mean(axis=0),
            f"{kind}_map50_95": precision.mean(axis=(0, 1)),
        }
        for key, values in per_class.items():
            known = values[values >= 0]
            table["mean"][key] = float(known.mean()) if len(known) else None
            for name, value in zip(class_names, values, strict=True):
                table[name][key] = float(value) if value >= 0 else None
    return table


def _annotations(instances: Instances, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations with the instances' own boxes: a detector's box is not that of its mask."""
    instances = instances.subset(instances.masks.any(axis=(1, 2)))
    annotations = coco.annotations_of(instances, image_id=image_id, first_id=first_id)
    for annotation, (x1, y1, x2, y2) in zip(annotations, instances.xyxy.tolist(), strict=True):
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    return annotations


def _document(class_names: Sequence[str]) -> dict[str, Any]:
    return {"info": {}, "images": [], "annotations": [], "categories": coco.categories(class_names)}


def _precision(
    truth: dict[str, Any], found: dict[str, Any], iou_type: str, image_ids: Sequence[int] | None = None
) -> np.ndarray:
    """Precision [IoU thresholds 0.5 to 0.95, recalls 0 to 1, classes]; -1 where a class has no truth."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluator = COCOeval(_indexed(truth), _indexed(found), iou_type)
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.maxDets = [_MAX_DETECTIONS]
        if image_ids is not None:
            evaluator.params.imgIds = list(image_ids)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"][:, :, :, 0, 0]


def _indexed(document: dict[str, Any]) -> COCO:
    index = COCO()
    index.dataset = {**document, "annotations": [dict(annotation) for annotation in document["annotations"]]}
    index.createIndex()
    return index


def evaluate_detector(
    weights: Path,
    dataset_root: Path,
    class_names: Sequence[str],
    *,
    split: str = "test",
    imgsz: int | None = None,
    device: str = "auto",
    batch_size: int = 16,
) -> dict[str, dict[str, float | None]]:
    """Average precision of a detector on a labelled dataset, as `average_precision` gives it.

    Args:
        weights: as for `load_detector`.
        dataset_root: as for `read_dataset`.
        class_names: the classes to measure; detections and truth of others are left aside.
        split: of the dataset.
        imgsz: side that images are scaled to; None means what the detector was trained at.
        device: as in `DetectorConfig`.
        batch_size: images at a time.

    Raises:
        ConfigError: if a class is not one of the dataset's, or the dataset or weights are missing or broken.
    """
    whole = evaluate_groups(
        weights, dataset_root, class_names, {}, split=split, imgsz=imgsz, device=device, batch_size=batch_size
    )
    return whole[None]


def evaluate_groups(
    weights: Path,
    dataset_root: Path,
    class_names: Sequence[str],
    groups: Mapping[Group, Collection[str]],
    *,
    split: str = "test",
    imgsz: int | None = None,
    device: str = "auto",
    batch_size: int = 16,
) -> dict[Group | None, dict[str, dict[str, float | None]]]:
    """What `evaluate_detector` measures, for all images (key None) and for groups of them; every image is seen once.

    Args:
        groups: names of the images of each group; those that the split lacks do not count.
    """
    absent = [name for name in class_names if name not in class_names_of(dataset_root)]
    if absent:
        raise ConfigError(f"class {absent[0]!r} is not labelled in {dataset_root}; measure classes that it has")
    yolo = load_detector(weights)
    names: list[str] = []

    def truths() -> Iterator[tuple[np.ndarray, Instances]]:
        for name, image, truth in read_dataset(dataset_root, split, class_names):
            names.append(name)
            yield image, truth

    pairs = detector_pairs(yolo, truths(), class_names=class_names, imgsz=imgsz, batch_size=batch_size, device=device)
    true, found = _documents(pairs, class_names)
    tables: dict[Group | None, dict[str, dict[str, float | None]]] = {None: _table(true, found, class_names)}
    for group, members in groups.items():
        ids = [image_id for image_id, name in enumerate(names, start=1) if name in members]
        if ids:
            tables[group] = _table(true, found, class_names, ids)
    return tables


def detector_pairs(
    yolo: Any, truths: Iterable[tuple[np.ndarray, Instances]], *, batch_size: int = 16, **options: Any
) -> Iterator[tuple[Instances, Instances]]:
    """What a detector finds, down to its weakest detections, beside the truth.

    Args:
        yolo: from `load_detector`.
        truths: image uint8 [H, W, 3] RGB and its true instances; taken a batch at a time.
        batch_size: images at a time.
        options: of `predict`.
    """
    images = iter(truths)
    while batch := list(islice(images, batch_size)):
        found = predict(
            yolo,
            [image for image, _ in batch],
            score_threshold=AP_SCORE_THRESHOLD,
            multi_label=True,
            batch_size=batch_size,
            **options,
        )
        yield from zip(found, (truth for _, truth in batch), strict=True)
