"""Hugging Face `datasets` imagefolders: a folder per split, with a line of metadata.jsonl per image.

    classes.txt                  class names in the order of their ids, one a line
    <split>/<name>.<suffix>      the images
    <split>/metadata.jsonl       file_name, width, height, objects, and how the image came about

`datasets.load_dataset("imagefolder", data_dir=...)` reads it as it is. `objects` holds lists, aligned: `bbox`
([x, y, width, height], pixels), `category` (names), `score`, and `segmentation` (COCO's compressed run lengths,
which pycocotools decodes), so instances come back exactly, scores to six decimals. What is known of an image's
origin has columns of its own, the same in every row, to filter by; `provenance` is all of it as JSON.

`datasets` infers types from the values: it does not load a split without a single object beside one with some.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.datasets.store import check_sample, store_image
from diffugen.errors import UserError
from diffugen.files import atomic_path, read_jsonl
from diffugen.instances import Instances, decode_rle, encode_rle
from diffugen.sample import Sample

METADATA = "metadata.jsonl"
CLASSES = "classes.txt"
ORIGIN = ("model", "revision", "prompt", "seed", "task", "parent", "labeler")


def to_row(sample: Sample, file_name: str, class_names: Sequence[str]) -> dict[str, Any]:
    """The line of an image; objects without any pixel are left out."""
    instances, origin = sample.instances, sample.origin()
    height, width = instances.size_hw
    instances = instances.subset(instances.masks.any(axis=(1, 2)))
    corners = instances.xyxy.tolist()
    objects = {
        "bbox": [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners],
        "category": [class_names[class_id] for class_id in instances.class_ids],
        "score": [round(float(score), 6) for score in instances.scores],
        "segmentation": [encode_rle(mask) for mask in instances.masks],
    }
    return {
        "file_name": file_name,
        "width": width,
        "height": height,
        "objects": objects,
        **_columns(origin),
        "provenance": json.dumps(origin, ensure_ascii=False),
    }


def from_row(row: Mapping[str, Any], class_names: Sequence[str]) -> tuple[Instances, dict[str, Any]]:
    """Instances and provenance of a line; objects of classes that are not in `class_names` are passed over.

    Raises:
        KeyError, ValueError: if it is not a line as `to_row` makes it.
    """
    size_hw = (int(row["height"]), int(row["width"]))
    objects = row["objects"]
    columns = zip(objects["category"], objects["score"], objects["segmentation"], strict=True)
    kept = [(class_names.index(name), score, rle) for name, score, rle in columns if name in class_names]
    masks = np.array([decode_rle(rle) for _, _, rle in kept], bool).reshape(-1, *size_hw)
    instances = Instances.from_masks(masks, [class_id for class_id, *_ in kept], [score for _, score, _ in kept])
    return instances, json.loads(row.get("provenance") or "{}")


def _columns(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The columns that every image has: texts, empty where something is not known, so that no type is in doubt."""
    model, parent = provenance.get("model"), provenance.get("parent")
    known = {
        **provenance,
        **({"model": model.get("path"), "revision": model.get("revision")} if isinstance(model, Mapping) else {}),
        **({"parent": parent.get("name")} if isinstance(parent, Mapping) else {}),
    }
    values = {column: known.get(column) for column in ORIGIN}
    return {column: "" if value is None else str(value) for column, value in values.items()}


def write(out: Path, samples: Iterable[Sample], class_names: Sequence[str], *, link_images: bool = True) -> None:
    """Write a folder; it appears complete or not at all, and replaces one that is there.

    Raises:
        ValueError: as `check_sample`, a name comes twice in a split, or there are no samples.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    with atomic_path(Path(out)) as folder:
        for sample in samples:
            check_sample(sample, class_names)
            file_name = store_image(folder / sample.split, sample, link=link_images)
            rows.setdefault(sample.split, []).append(to_row(sample, file_name, class_names))
        if not rows:
            raise ValueError("the dataset has no items; give at least one")
        for split, lines in rows.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (folder / split / METADATA).write_text(text, encoding="utf-8")
        (folder / CLASSES).write_text("".join(name + "\n" for name in class_names), encoding="utf-8")


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout."""
    return any(Path(root).glob(f"*/{METADATA}"))


def class_names_of(root: Path) -> list[str]:
    """The class names; of a folder without classes.txt those of its objects, in the order of the alphabet."""
    path = Path(root) / CLASSES
    if path.is_file():
        return path.read_text(encoding="utf-8").splitlines()
    names = {name for split in splits_of(root) for row in _rows(root, split) for name in row["objects"]["category"]}
    return sorted(names)


def splits_of(root: Path) -> list[str]:
    """The splits."""
    return sorted(path.parent.name for path in Path(root).glob(f"*/{METADATA}"))


def read(root: Path, split: str, class_names: Sequence[str]) -> Iterator[tuple[Path, Instances, dict[str, Any]]]:
    """Each image's file, its instances and its provenance.

    Raises:
        UserError: the split is missing or its metadata is not as `to_row` makes it.
    """
    for row in _rows(root, split):
        try:
            instances, provenance = from_row(row, class_names)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"dataset {root}, {split}/{METADATA}: {row.get('file_name')!r} has no objects that "
                              f"can be read ({type(error).__name__}: {error})") from None  # fmt: skip
        yield Path(root) / split / row["file_name"], instances, provenance


def _rows(root: Path, split: str) -> list[dict[str, Any]]:
    path = Path(root) / split / METADATA
    if not path.is_file():
        raise UserError(f"dataset {root} has no split {split!r}; it has {', '.join(splits_of(root))}")
    try:
        return read_jsonl(path)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON, line by line: {error}") from None
