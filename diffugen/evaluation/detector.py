"""Average precision of a detector on a labelled split."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.detector.model import load_detector, predict
from diffugen.errors import UserError
from diffugen.evaluation.metrics import _documents, _table
from diffugen.instances import Instances

AP_SCORE_THRESHOLD = 0.001  # average precision needs the weak detections too


Group = TypeVar("Group", bound=Hashable)


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
        UserError: if a class is not one of the dataset's, or the dataset or weights are missing or broken.
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
        raise UserError(f"class {absent[0]!r} is not labelled in {dataset_root}; measure classes that it has")
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
    """What a detector finds, down to its weakest detections, with the truth.

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
