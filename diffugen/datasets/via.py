"""Region files of the VGG Image Annotator (VIA), as Matterport's balloon set has them; read only.

    via_region_data.json        beside the images, or in a folder per split: <split>/via_region_data.json

An entry per image: `filename` and `regions`, a list or a dict of a shape (polygon, rect, circle or ellipse, in pixels)
and its attributes. The class is the attribute that all regions have; where there is none, as in the balloon set, the
one class that the caller names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.datasets import outlines
from diffugen.datasets.json_file import is_via, read_annotations
from diffugen.datasets.labelled import Drawn, Labelled, LeftOut, inside, instances_of
from diffugen.errors import UserError

NAME = "via_region_data.json"

_USUAL = ("class", "label", "name", "category", "type", "object")


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (Path(root) / NAME).is_file() or any(Path(root).glob(f"*/{NAME}"))


def splits_of(root: Path) -> list[str]:
    """The splits; a file beside the images is "train"."""
    return (
        ["train"]
        if (Path(root) / NAME).is_file()
        else sorted(path.parent.name for path in Path(root).glob(f"*/{NAME}"))
    )


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names of a folder's splits, in the order of the alphabet; `wanted` as for `names_of`."""
    files = [_file(root, split) for split in splits_of(root)]
    return sorted({name for file in files for name in names_of(read_annotations(file)[1], file, wanted)})


def read(root: Path, split: str, class_names: Sequence[str] | None = None) -> Iterator[Labelled]:
    """As `read_document`, for a split of a folder."""
    file = _file(root, split)
    if not file.is_file():
        raise UserError(f"dataset {root} has no split {split!r}; it has {', '.join(splits_of(root))}")
    yield from read_document(read_annotations(file)[1], file, file.parent, class_names)


def names_of(document: Mapping[str, Any], path: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names in the order of the alphabet.

    Args:
        document: of a VIA file.
        path: of the file, for messages.
        wanted: the caller's classes; regions that name no class are of the only one.

    Raises:
        UserError: the regions name no class and the caller not just one, or an entry cannot be used.
    """
    regions = [region for _, found in _entries(document, path) for region in found]
    attribute = _attribute(document, path)
    if attribute is None:
        if len(wanted or ()) != 1:
            raise UserError(
                f"{path} is a VIA file whose regions name no class; give the one that they show with --classes NAME"
            )
        return list(wanted or ())
    return sorted({_class_of(attributes, attribute) for _, _, attributes in regions} - {""})


def read_document(
    document: Mapping[str, Any], path: Path, images: Path, class_names: Sequence[str] | None = None
) -> Iterator[Labelled]:
    """Each image of a VIA file with its regions.

    Args:
        document, path: as for `names_of`.
        images: the folder of the image files.
        class_names: which classes to read, in which order; None means all.
    """
    names = list(class_names or names_of(document, path))
    attribute = _attribute(document, path)
    left_out = LeftOut(path, "its regions")
    for file_name, regions in _entries(document, path):
        file = _image(images, file_name, path)
        objects = []
        for where, shape, attributes in regions:
            name = names[0] if attribute is None else _class_of(attributes, attribute)
            if not name:
                left_out.add("without a class", where)
            elif name in names:
                objects.append(Drawn(where, names.index(name), partial(_mask, shape)))
        labels = partial(instances_of, objects, what=f"{path}: {file_name}", left_out=left_out)
        yield Labelled(file, file.relative_to(images).as_posix(), labels, left_out=left_out)


def image_files(document: Mapping[str, Any], path: Path, images: Path) -> Iterator[Path]:
    """The file of each image; arguments and errors as for `read_document`."""
    return (_image(images, name, path) for name, _ in _entries(document, path))


def _image(images: Path, file_name: object, path: Path) -> Path:
    return inside(images, file_name, f"{path}: filename")


def _file(root: Path, split: str) -> Path:
    return Path(root) / NAME if (Path(root) / NAME).is_file() else Path(root) / split / NAME


def _entries(document: Mapping[str, Any], path: Path) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    """Each image's file name and regions: where, shape and attributes."""
    entries = document.get("_via_img_metadata", document)
    if not isinstance(entries, dict) or (entries and not is_via(entries)):
        raise UserError(f"{path} is a VIA project without `filename` and `regions` for every image; export it again")
    for entry in entries.values():
        regions, name = entry["regions"], entry["filename"]
        listed = list(regions.values()) if isinstance(regions, dict) else regions
        if not isinstance(listed, list) or not all(isinstance(region, dict) for region in listed):
            raise UserError(f"{path}: the regions of {str(name)[:60]!r} are no regions of VIA; export the file again")
        shown = str(name)[:40]
        yield (
            name,
            [
                (f"region {number} of {shown}", region.get("shape_attributes"), region.get("region_attributes"))
                for number, region in enumerate(listed)
            ],
        )


def _attribute(document: Mapping[str, Any], path: Path) -> str | None:
    """The attribute that holds the class; None where no region has any."""
    used: dict[str, int] = {}
    for _, regions in _entries(document, path):
        for _, _, attributes in regions:
            for key, value in attributes.items() if isinstance(attributes, dict) else ():
                if value not in ("", None, {}):
                    used[key] = used.get(key, 0) + 1
    if len(used) < 2:
        return next(iter(used), None)
    usual = [key for key in used if key.lower() in _USUAL]
    if len(usual) != 1:
        raise UserError(
            f"{path}: the regions have the attributes {', '.join(sorted(used)[:10])}, and none is surely the class; "
            "call it 'class' in VIA and export the file again"
        )
    return usual[0]


def _class_of(attributes: Any, attribute: str) -> str:
    """The class that a region names: a text, or the one box that is ticked; empty where it names none."""
    value = attributes.get(attribute) if isinstance(attributes, dict) else None
    if isinstance(value, dict):
        ticked = [key for key, on in value.items() if on]
        value = ticked[0] if len(ticked) == 1 else ""
    return value.strip() if isinstance(value, str) else ""


def _mask(shape: Any, size_hw: tuple[int, int]) -> np.ndarray | str:
    """A region's mask; or why there is none."""
    kind = shape.get("name") if isinstance(shape, dict) else None
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            return outlines.NO_NUMBERS
        polygons = outlines.polygons_of([list(point) for point in zip(xs, ys, strict=True)])
        if isinstance(polygons, str):
            return polygons
        return outlines.polygon_mask(polygons, size_hw) if polygons else outlines.TOO_FEW_POINTS
    keys = {"rect": "x y width height", "circle": "cx cy r r", "ellipse": "cx cy rx ry"}
    if kind not in keys:
        return f"of the shape {str(kind)[:20]!r}, which has no area"
    numbers = [shape.get(key) for key in keys[kind].split()]
    if not all(outlines.is_number(number) for number in numbers):
        return outlines.NO_NUMBERS
    if kind == "rect":
        return outlines.box_mask(numbers, size_hw)
    return outlines.polygon_mask([outlines.ellipse(*numbers)], size_hw)
