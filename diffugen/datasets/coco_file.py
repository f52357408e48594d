"""Reading COCO instance files of any origin: every annotation is checked, and what is left out is counted by reason.

Masks are made for the size of the image's file. Run lengths that do not fit it are an error, since a scrambled mask
looks like a label; an annotation without a usable outline is left out with a warning.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.datasets.labelled import Drawn, Labelled, LeftOut, inside, instances_of
from diffugen.datasets.outlines import box_mask, box_of_entry, is_number, polygon_mask, polygons_of
from diffugen.decoding import max_pixels
from diffugen.errors import UserError, reason_of
from diffugen.instances import Instances, decode_rle

logger = logging.getLogger(__name__)

NO_OUTLINE = "without segmentation or bbox"
CROWD = "crowds"
UNKNOWN_IMAGE = "of images that are not listed"
UNLISTED_CATEGORY = "of categories that are not listed"

Id = int | str

_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class _Annotation:
    """A checked annotation: run lengths, polygons, or a box."""

    where: str
    category: Id
    score: float
    shape: Mapping[str, Any] | list[np.ndarray] | tuple[float, float, float, float]

    def mask(self, size_hw: tuple[int, int]) -> np.ndarray | str:
        """bool [H, W]; or why there is none."""
        if isinstance(self.shape, tuple):
            return box_mask(self.shape, size_hw)
        if isinstance(self.shape, list):
            return polygon_mask(self.shape, size_hw)
        size, counts = self.shape.get("size"), self.shape.get("counts")
        if size is not None and size != list(size_hw):
            raise UserError(f"{self.where}: its mask has the size {str(size)[:40]}, but the image {list(size_hw)} "
                              "(height, width); correct or remove it")  # fmt: skip
        try:
            mask = decode_rle({"size": size_hw, "counts": counts})
        except ValueError as error:
            raise UserError(f"{self.where}: {reason_of(error)}; correct or remove the annotation") from None
        return mask if mask.any() else "of an empty mask"


@dataclass
class _Image:
    """An image's entry, and its annotations."""

    file_name: str
    size_hw: tuple[int, int] | None
    provenance: dict[str, Any]
    annotations: list[_Annotation] = field(default_factory=list)


def names_of(document: Mapping[str, Any], path: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The category names in the order of their ids.

    Raises:
        UserError: a category is none, or two that are used have one name.
    """
    return list(_categories(document, path).values())


def read_document(
    document: Mapping[str, Any], path: Path, images: Path, class_names: Sequence[str] | None = None
) -> Iterator[Labelled]:
    """Each image of a COCO document with its objects.

    Args:
        document: as `names_of` takes it, with the lists `images`, `annotations` and `categories`.
        path: of the file, for messages.
        images: the folder of the image files.
        class_names: which classes to read, in which order; None means all.

    Raises:
        UserError: an entry cannot be used; names the file and the entry.
    """
    categories = _categories(document, path)
    names = list(class_names or categories.values())
    class_of = {number: names.index(name) for number, name in categories.items() if name in names}
    left_out = LeftOut(path, f"{len(document['annotations'])} annotations")
    entries = _images(document, path)
    _sort_in(document, path, entries, categories, left_out)
    by_file: dict[Path, _Image] = {}  # a file that is listed twice has all its labels
    for file, entry in zip(_files(entries, path, images), entries.values(), strict=True):
        if file in by_file:
            by_file[file].annotations += entry.annotations
        else:
            by_file[file] = entry
    for file, entry in by_file.items():
        labels = partial(_instances, entry, class_of, path, left_out)
        yield Labelled(file, file.relative_to(images).as_posix(), labels, entry.provenance, entry.size_hw, left_out)


def image_files(document: Mapping[str, Any], path: Path, images: Path) -> Iterator[Path]:
    """The file of each image; arguments and errors as for `read_document`."""
    return _files(_images(document, path), path, images)


def _files(entries: Mapping[Id, _Image], path: Path, images: Path) -> Iterator[Path]:
    for number, entry in entries.items():
        yield inside(images, entry.file_name, f"{path}: file_name of image {number!r}")


def _instances(
    entry: _Image, class_of: Mapping[Id, int], path: Path, left_out: LeftOut, size_hw: tuple[int, int]
) -> Instances:
    if entry.size_hw is not None and entry.size_hw != size_hw:
        raise UserError(
            f"image {entry.file_name} is {size_hw[1]}x{size_hw[0]} pixels, but {path} says "
            f"{entry.size_hw[1]}x{entry.size_hw[0]}; label the image that is there, or remove its width and height"
        )
    objects = [
        Drawn(annotation.where.rpartition(": ")[2], class_of[annotation.category], annotation.mask, annotation.score)
        for annotation in entry.annotations
        if annotation.category in class_of
    ]
    return instances_of(objects, size_hw, f"{path}: {entry.file_name}", left_out)


def _categories(document: Mapping[str, Any], path: Path) -> dict[Id, str]:
    """Category id -> name, by id; of two with one name the one without annotations is left out (Roboflow's root)."""
    found: dict[Id, str] = {}
    for number, entry in enumerate(document["categories"]):
        key = _id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None or not isinstance(name := entry.get("name"), str) or not name.strip():
            raise UserError(f"{path}: categories[{number}] has no id and name; correct it")
        if found.setdefault(key, name) != name:
            raise UserError(f"{path}: the category id {key} is both {found[key]!r} and {name!r}; correct one of them")
    used = {_id(entry.get("category_id")) for entry in document["annotations"] if isinstance(entry, dict)}
    counts = Counter(found.values())
    found = {key: name for key, name in found.items() if counts[name] == 1 or key in used}
    for name, count in Counter(found.values()).items():
        if count > 1:
            keys = " and ".join(str(key) for key, other in found.items() if other == name)
            raise UserError(f"{path}: the categories {keys} are both called {name!r}; rename one, so that they differ")
    return dict(sorted(found.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])))


def _images(document: Mapping[str, Any], path: Path) -> dict[Id, _Image]:
    found: dict[Id, _Image] = {}
    for number, entry in enumerate(document["images"]):
        key = _id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None:
            raise UserError(f"{path}: images[{number}] has no id; correct it")
        name, provenance = entry.get("file_name"), entry.get("provenance")
        if not isinstance(name, str):
            raise UserError(f"{path}: file_name of image {key!r} is {str(name)[:60]!r}, which is no text; correct it")
        if key in found and found[key].file_name != name:
            raise UserError(
                f"{path}: the image id {key!r} belongs to {found[key].file_name!r} and {name!r}; correct it"
            )
        size = _size(entry.get("height"), entry.get("width"), f"{path}: image {key!r}")
        found.setdefault(key, _Image(name, size, provenance if isinstance(provenance, dict) else {}))
    return found


def _size(height: Any, width: Any, where: str) -> tuple[int, int] | None:
    """The stated size; None where a side is missing or 0: then the file's counts."""
    sides = [int(side) if isinstance(side, str) and _DIGITS.fullmatch(side) else side for side in (height, width)]
    if not all(sides):
        return None
    whole = all(is_number(side) and side == int(side) and side > 0 for side in sides)
    if not whole or sides[0] * sides[1] > max_pixels():
        raise UserError(
            f"{where} has the height {str(height)[:20]} and the width {str(width)[:20]}, which no image has "
            f"(at most {max_pixels()} pixels); correct or remove them"
        )
    return int(sides[0]), int(sides[1])


def _sort_in(
    document: Mapping[str, Any],
    path: Path,
    images: Mapping[Id, _Image],
    categories: Mapping[Id, str],
    left_out: LeftOut,
) -> None:
    """Hang every annotation that can be used under its image."""
    all_crowds = all(_is_crowd(entry) for entry in document["annotations"] if isinstance(entry, dict))
    boxes: list[str] = []
    for number, entry in enumerate(document["annotations"]):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: annotations[{number}] is not an annotation; correct or remove it")
        name = f"annotation {entry['id']!r}"[:60] if "id" in entry else f"annotations[{number}]"
        image, category = _id(entry.get("image_id")), _id(entry.get("category_id"))
        if image is None or image not in images:
            left_out.add(UNKNOWN_IMAGE, name)
        elif category is None or category not in categories:
            left_out.add(UNLISTED_CATEGORY, name)
        elif _is_crowd(entry) and not all_crowds and not _is_brush_mask(entry):
            left_out.add(CROWD, name)
        elif isinstance(shape := _shape(entry), str):
            left_out.add(shape, name)
        else:
            score = _score(entry.get("score"), f"{path}: {name}")
            images[image].annotations.append(_Annotation(f"{path}: {name}", category, score, shape))
            boxes += [name] if isinstance(shape, tuple) else []
    if boxes:
        logger.warning("%s: %d annotations have no outline, so their boxes count as masks (first: %s)",
                       path, len(boxes), boxes[0])  # fmt: skip


def _shape(entry: Mapping[str, Any]) -> Mapping[str, Any] | list[np.ndarray] | tuple[float, float, float, float] | str:
    """An annotation's outline; or why it has none."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict) and segmentation:
        return segmentation
    polygons = polygons_of(segmentation or [])
    return polygons or box_of_entry(entry.get("bbox")) or NO_OUTLINE


def _is_crowd(entry: Mapping[str, Any]) -> bool:
    return entry.get("iscrowd") in (1, True, "1")


def _is_brush_mask(entry: Mapping[str, Any]) -> bool:
    """CVAT calls the masks of its brush crowds; they have its attribute."""
    attributes = entry.get("attributes")
    return isinstance(attributes, dict) and "occluded" in attributes


def _score(value: Any, where: str) -> float:
    if value is None:
        return 1.0
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{where}: its score is {str(value)[:20]!r}, not a number from 0 to 1; correct or remove it")
    return float(value)


def _id(value: Any) -> Id | None:
    """An id as a number, also where the file has it as text; None if it is none."""
    if isinstance(value, str):
        return int(value) if _DIGITS.fullmatch(value) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
