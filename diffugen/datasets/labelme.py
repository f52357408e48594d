"""LabelMe's files: a JSON for each image, beside it; read only.

    <name>.json                 shapes (polygon, rectangle, circle or mask) with a label; imagePath names the image
    <split>/<name>.json         the same in a folder per split

Shapes of one label and `group_id` are parts of one object. An image without a JSON counts as background.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffugen.datasets import outlines
from diffugen.datasets.json_file import read_json_value
from diffugen.datasets.labelled import Drawn, Labelled, LeftOut, inside, instances_of
from diffugen.decoding import known_suffixes
from diffugen.errors import UserError
from diffugen.instances import Instances

logger = logging.getLogger(__name__)


def is_dataset(root: Path) -> bool:
    """Whether a folder, or each of its folders, has LabelMe files."""
    return bool(splits_of(root))


def splits_of(root: Path) -> list[str]:
    """The splits: "train" for files in the folder itself, else the folders that have some."""
    root = Path(root)
    if not root.is_dir():
        return []
    if _has_files(root):
        return ["train"]
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "." and _has_files(path))


def _has_files(folder: Path) -> bool:
    """Whether the first JSON file of a folder is one of LabelMe, by how it begins: they may be large."""
    first = min((path for path in folder.glob("*.json") if path.is_file()), default=None)
    if first is None:
        return False
    with first.open("rb") as file:
        head = file.read(4096).replace(b"\0", b"")  # UTF-16 too: its reader says what is wrong with it
    return b'"shapes"' in head or (b'"flags"' in head and b'"version"' in head)


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The labels, in the order of the alphabet."""
    files = [path for split in splits_of(root) for path in _files(root, split)]
    return sorted({name for path in files for name in names_of(_document(path), path)})


def names_of(document: Mapping[str, Any], path: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The labels of a file, in the order of the alphabet."""
    return sorted({shape["label"] for shape in _shapes(document, path)})


def read(root: Path, split: str, class_names: Sequence[str] | None = None) -> Iterator[Labelled]:
    """Each image of a split with its objects.

    Raises:
        UserError: the split is missing, or a file cannot be used.
    """
    if split not in splits_of(root):
        raise UserError(f"dataset {root} has no split {split!r}; it has {', '.join(splits_of(root))}")
    names = list(class_names or class_names_of(root))
    folder, labelled = _folder(root, split), set()
    left_out = LeftOut(folder, "its shapes")
    for path in _files(root, split):
        for item in read_document(_document(path), path, folder, names, left_out):
            labelled.add(item.path.name)
            yield item
    images = (path for path in folder.iterdir() if path.suffix.lower() in known_suffixes() and path.name[0] != ".")
    others = sorted(path for path in images if path.name not in labelled)
    if others:
        logger.warning("%s: %d images have no JSON file of LabelMe and count as background (first: %s)",
                       folder, len(others), others[0].name)  # fmt: skip
    for path in others:
        yield Labelled(path, path.name, Instances.empty)


def read_document(
    document: Mapping[str, Any],
    path: Path,
    images: Path,
    class_names: Sequence[str] | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Labelled]:
    """The image of a LabelMe file with its objects.

    Args:
        document: of the file.
        path: of the file, for messages.
        images: the folder of the image files.
        class_names: which labels to read, in which order; None means all.
        left_out: of the folder, if the file is one of many.
    """
    names = list(class_names or names_of(document, path))
    left_out = left_out or LeftOut(path, "its shapes")
    (file,) = image_files(document, path, images)
    objects = [
        Drawn(
            f"{path.name}, shapes[{number}]",
            names.index(shape["label"]),
            partial(_mask, shape),
            group=None if shape.get("group_id") is None else (shape["label"], str(shape["group_id"])),
        )
        for number, shape in enumerate(_shapes(document, path))
        if shape["label"] in names
    ]
    stated = [document.get(side) for side in ("imageHeight", "imageWidth")]

    def labels(size_hw: tuple[int, int]) -> Instances:
        if any(side is not None and side != own for side, own in zip(stated, size_hw, strict=True)):
            height, width = (str(side)[:20] for side in stated)
            raise UserError(
                f"image {file.name} is {size_hw[1]}x{size_hw[0]} pixels, but {path} says {width}x{height}; label the "
                "image that is there, or remove imageHeight and imageWidth"
            )
        return instances_of(objects, size_hw, str(path), left_out)

    yield Labelled(file, file.name, labels, left_out=left_out)


def image_files(document: Mapping[str, Any], path: Path, images: Path) -> list[Path]:
    """The image's file; arguments and errors as for `read_document`."""
    name = document.get("imagePath")
    # LabelMe writes the way from the JSON file, with the slashes of its system; supervision takes the name alone, too
    plain = name.replace("\\", "/").rpartition("/")[2] if isinstance(name, str) else name
    return [inside(images, plain, f"{path}: imagePath")]


def _folder(root: Path, split: str) -> Path:
    return Path(root) if _has_files(Path(root)) else Path(root) / split


def _files(root: Path, split: str) -> list[Path]:
    return sorted(path for path in _folder(root, split).glob("*.json") if path.is_file())


def _document(path: Path) -> Mapping[str, Any]:
    value = read_json_value(path)
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        raise UserError(f"{path} is no LabelMe file like its neighbours: it has no list `shapes`; move it elsewhere")
    return value


def _shapes(document: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    for number, shape in enumerate(document["shapes"]):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise UserError(f"{path}: shapes[{number}] has no label; give it one in LabelMe, or remove it")
    return document["shapes"]


def _mask(shape: Mapping[str, Any], size_hw: tuple[int, int]) -> np.ndarray | str:
    """A shape's mask; or why there is none."""
    kind = shape.get("shape_type") or "polygon"
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        return f"of the type {str(kind)[:20]!r}, which has no area"
    points = outlines.polygons_of(shape.get("points"))
    if kind == "polygon":
        if isinstance(points, str):
            return points
        return outlines.polygon_mask(points, size_hw) if points else outlines.TOO_FEW_POINTS
    ends = shape.get("points")
    if not isinstance(ends, list) or len(ends) < 2 or not all(map(outlines.is_point, ends)):
        return outlines.NO_NUMBERS
    if kind == "circle":  # its centre, and a point on it
        (x, y), (end_x, end_y) = ends[:2]
        radius = math.dist((x, y), (end_x, end_y))
        return outlines.polygon_mask([outlines.ellipse(x, y, radius, radius)], size_hw)
    (left, top), (right, bottom) = np.min(ends, axis=0).tolist(), np.max(ends, axis=0).tolist()
    if kind == "mask":
        return _brush_mask(shape.get("mask"), (left, top), size_hw)
    return outlines.box_mask((left, top, right - left, bottom - top), size_hw)


def _brush_mask(data: Any, corner: tuple[float, float], size_hw: tuple[int, int]) -> np.ndarray | str:
    """A mask that a shape holds as a PNG, at its box's corner."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"]) as picture:
            if picture.height > size_hw[0] + 1 or picture.width > size_hw[1] + 1:
                return "whose mask is larger than the image"
            part = np.asarray(picture.convert("L")) > 0
    except (TypeError, binascii.Error, OSError, SyntaxError, ValueError):
        return "whose mask is no PNG"
    mask = np.zeros(size_hw, bool)
    x, y = (int(min(max(value, 0), limit)) for value, limit in zip(corner, size_hw[::-1], strict=True))
    part = part[: size_hw[0] - y, : size_hw[1] - x]
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mask if mask.any() else outlines.NOTHING_INSIDE
