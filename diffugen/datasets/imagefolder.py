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
from functools import partial
from pathlib import Path
from typing import Any

from diffugen.datasets.data_yaml import check_distinct
from diffugen.datasets.labelled import Labelled, inside, stacked
from diffugen.datasets.store import check_class_names, check_sample, store_image
from diffugen.decoding import max_pixels
from diffugen.errors import UserError, reason_of
from diffugen.files import read_text
from diffugen.instances import Instances, decode_rle, encode_rle
from diffugen.outputs import new_output
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
    size_hw = (row["height"], row["width"])
    if not all(type(side) is int and side > 0 for side in size_hw) or size_hw[0] * size_hw[1] > max_pixels():
        raise ValueError(f"height {size_hw[0]!r} and width {size_hw[1]!r} are no image's")
    objects = row["objects"]
    columns = zip(objects["category"], objects["score"], objects["segmentation"], strict=True)
    kept = [(class_names.index(name), score, rle) for name, score, rle in columns if name in class_names]
    for _, _, rle in kept:
        if list(rle["size"]) != list(size_hw):
            raise ValueError(f"a mask has the size {rle['size']}, the image {list(size_hw)}")
    masks = stacked((decode_rle(rle) for _, _, rle in kept), size_hw, len(kept), str(row.get("file_name"))[:60])
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


def write(
    out: Path,
    samples: Iterable[Sample],
    class_names: Sequence[str],
    *,
    link_images: bool = True,
    command: str = "dataset",
) -> None:
    """Write a folder; it appears complete or not at all, and replaces one that the same command wrote.

    Raises:
        ValueError: as `check_sample`, a name comes twice in a split, or there are no samples.
        UserError: the folder is not empty and not what the command wrote.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    check_class_names(class_names)
    with new_output(out, command) as folder:
        for sample in samples:
            check_sample(sample, class_names)
            file_name = store_image(folder / sample.split, sample, link=link_images)
            rows.setdefault(sample.split, []).append(to_row(sample, file_name, class_names))
        if not rows:
            raise UserError("the dataset has no images; give at least one")
        for split, lines in rows.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (folder / split / METADATA).write_text(text, encoding="utf-8")
        (folder / CLASSES).write_text("".join(name + "\n" for name in class_names), encoding="utf-8")


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout."""
    return any(Path(root).glob(f"*/{METADATA}"))


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names; of a folder without classes.txt those of its objects, in the order of the alphabet."""
    path = Path(root) / CLASSES
    if path.is_file():
        names = read_text(path).splitlines()
        check_distinct(names, path)
        return names
    found: set[str] = set()
    for split in splits_of(root):
        for number, row in enumerate(_rows(root, split), start=1):
            objects = row.get("objects")
            categories = objects.get("category") if isinstance(objects, dict) else None
            if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
                where = f"{Path(root) / split / METADATA}, line {number}"
                raise UserError(f"{where}: objects.category is no list of class names; write the file again")
            found |= set(categories)
    return sorted(found)


def splits_of(root: Path) -> list[str]:
    """The splits."""
    return sorted(path.parent.name for path in Path(root).glob(f"*/{METADATA}"))


def read(root: Path, split: str, class_names: Sequence[str] | None = None) -> Iterator[Labelled]:
    """Each image of a split with its objects and its provenance.

    Raises:
        UserError: the split is missing or its metadata is not as `to_row` makes it.
    """
    names = class_names_of(root)
    for number, row in enumerate(_rows(root, split), start=1):
        where = f"{Path(root) / split / METADATA}, line {number}"
        path = inside(Path(root) / split, row.get("file_name"), f"{where}: file_name")
        known = partial(_instances, row, names, class_names or names, where)
        yield Labelled(path, path.relative_to(Path(root) / split).as_posix(), known, _provenance(row))


def _instances(
    row: Mapping[str, Any], names: Sequence[str], class_names: Sequence[str], where: str, size_hw: tuple[int, int]
) -> Instances:
    try:
        if (stated := (row["height"], row["width"])) != size_hw:
            raise ValueError(f"it is {size_hw[1]}x{size_hw[0]} pixels, but stated as {stated[1]}x{stated[0]}")
        if unknown := [name for name in row["objects"]["category"] if name not in names]:
            raise ValueError(f"the class {unknown[0]!r} is not in {CLASSES}")
        return from_row(row, class_names)[0]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {row.get('file_name')!r} has no objects that can be read "
                          f"({reason_of(error)}); write the file again")  from None  # fmt: skip


def _provenance(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the line says of the image's origin; nothing where another tool wrote it."""
    try:
        known = json.loads(row.get("provenance") or "{}")
    except (TypeError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _rows(root: Path, split: str) -> list[dict[str, Any]]:
    path = Path(root) / split / METADATA
    if not path.is_file():
        raise UserError(f"dataset {root} has no split {split!r}; it has {', '.join(splits_of(root))}")
    rows = []
    # not splitlines(): that also splits at line separators inside a text
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = []
        if row is not None and not isinstance(row, dict):
            raise UserError(f"{path} is not valid JSON, line by line: line {number} is no object; write the file again")
        rows += [] if row is None else [row]
    return rows
