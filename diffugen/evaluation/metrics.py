"""How good labels and detectors are, measured against instances that are known to be true."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from diffugen.datasets import coco
from diffugen.instances import Instances
from diffugen.masks.matching import match_instances

_MAX_DETECTIONS = 100  # per image, as COCO counts


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
    found, true = coco.Document(class_names), coco.Document(class_names)
    for pred, truth in pairs:
        for document, instances in ((found, pred), (true, truth)):
            # the instances' own boxes: a detector's box is not that of its mask
            boxes = instances.xyxy[instances.masks.any(axis=(1, 2))].tolist()
            for annotation, (x1, y1, x2, y2) in zip(document.add(instances), boxes, strict=True):
                annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    return true.value, found.value


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
