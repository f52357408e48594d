"""Semantic masks as PASCAL VOC has them: palette PNGs, a pixel's value being its class.

    labels.txt                       class names, a line per pixel value: the first is the background, 0
    JPEGImages/<name>.<suffix>       the images, of whatever type they are
    SegmentationClass/<name>.png     classes; 255 is ignored
    SegmentationObject/<name>.png    which object, from 1; 255 is ignored
    ImageSets/Segmentation/<split>.txt   the names of each split's images

With both kinds of mask instances come back exactly, holes, parts and touching neighbours too, except that a
pixel belongs to one object only: the one of the higher score. From class masks alone, as other tools write
them, instances are connected components: touching objects of one class are one, and an object in two parts is
two. Scores and provenance are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from diffugen.datasets.store import IMAGE_SUFFIXES, check_sample, store_image
from diffugen.errors import UserError
from diffugen.files import atomic_path
from diffugen.images import index_map
from diffugen.instances import Instances
from diffugen.sample import Sample

IGNORE = 255
BACKGROUND = "background"


def to_masks(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
    """Class mask and object mask, uint8 [H, W] each; class ids are shifted by one, as 0 is the background.

    Raises:
        UserError: there are more classes or objects than a palette PNG has room for (254).
    """
    most = max(len(instances), int(instances.class_ids.max(initial=-1)) + 1)
    if most >= IGNORE:
        raise UserError(f"{most} classes or objects do not fit into VOC's PNGs, which have room for 254; use COCO")
    objects = index_map(instances).astype(np.uint8)
    return np.concatenate([[0], instances.class_ids + 1]).astype(np.uint8)[objects], objects


def from_masks(classes: np.ndarray, objects: np.ndarray | None = None) -> Instances:
    """The inverse of `to_masks`; without an object mask connected components are the objects.

    Raises:
        ValueError: the masks differ in size, or an object has no class.
    """
    if objects is None:
        objects = _components(classes)
    if objects.shape != classes.shape:
        raise ValueError(f"the object mask has {objects.shape} pixels, the class mask {classes.shape}")
    numbers = [number for number in np.unique(objects) if number not in (0, IGNORE)]
    masks = np.array([objects == number for number in numbers], bool).reshape(-1, *classes.shape)
    return Instances.from_masks(masks, [_class_of(classes[mask]) for mask in masks])


def _class_of(values: np.ndarray) -> int:
    """The class id of an object: of most of its pixels that have a class, as other tools' edges are ignored."""
    known = values[(values != 0) & (values != IGNORE)]
    if not len(known):
        raise ValueError("an object of the object mask has no class in the class mask")
    return int(np.bincount(known).argmax()) - 1


def _components(classes: np.ndarray) -> np.ndarray:
    """int32 [H, W]: 0, or the number of the component of one class; 255 is left out, as it means ignored."""
    numbers, total = np.zeros(classes.shape, np.int32), 0
    for value in np.unique(classes):
        if value in (0, IGNORE):
            continue
        count, parts = cv2.connectedComponents((classes == value).astype(np.uint8), connectivity=8)
        parts[parts > 0] += total
        numbers += parts
        total += count - 1
    return np.where(numbers >= IGNORE, numbers + 1, numbers)


def palette() -> list[int]:
    """VOC's colours, 256 times r, g, b: the bits of a value dealt out to the channels, the lowest first."""
    colours = np.zeros((256, 3), int)
    for value in range(256):
        for bit in range(8):
            colours[value, bit % 3] |= (value >> bit & 1) << 7 - bit // 3
    return colours.ravel().tolist()


def write(out: Path, samples: Iterable[Sample], class_names: Sequence[str], *, link_images: bool = True) -> None:
    """Write a folder; it appears complete or not at all, and replaces one that is there.

    Names must be unique over all splits, which share one folder; a name that comes again gets its split in front.

    Raises:
        ValueError: as `check_sample`, or if there are no samples.
        UserError: an image has more objects than fit.
    """
    splits: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    with atomic_path(Path(out)) as folder:
        for sample in samples:
            check_sample(sample, class_names)
            clash = owner.setdefault(sample.name, sample.split) != sample.split
            stored = replace(sample, name=f"{sample.split}_{sample.name}") if clash else sample
            store_image(folder / "JPEGImages", stored, link=link_images)
            for kind, mask in zip(("Class", "Object"), to_masks(sample.instances), strict=True):
                _write_mask(folder / f"Segmentation{kind}" / f"{stored.name}.png", mask)
            splits.setdefault(sample.split, []).append(stored.name)
        if not splits:
            raise ValueError("the dataset has no items; give at least one")
        _write_lines(folder / "labels.txt", [BACKGROUND, *class_names])
        for split, names in splits.items():
            _write_lines(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (Path(root) / "ImageSets" / "Segmentation").is_dir()


def class_names_of(root: Path) -> list[str]:
    """The class names, without the background."""
    path = Path(root) / "labels.txt"
    if not path.is_file():
        raise UserError(f"dataset {root} has no labels.txt; write the class names into it, a line each, "
                          f"with {BACKGROUND!r} as the first")  # fmt: skip
    names = path.read_text(encoding="utf-8").splitlines()
    return names[1:]


def splits_of(root: Path) -> list[str]:
    """The splits."""
    return sorted(path.stem for path in (Path(root) / "ImageSets" / "Segmentation").glob("*.txt"))


def read(root: Path, split: str) -> Iterator[tuple[Path, Instances]]:
    """Each image's file and its instances.

    Raises:
        UserError: the split or a file is missing or broken.
    """
    root = Path(root)
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"dataset {root} has no split {split!r}; it has {', '.join(splits_of(root))}")
    for name in listing.read_text(encoding="utf-8").splitlines():
        candidates = (root / "JPEGImages" / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)
        image = next((path for path in candidates if path.is_file()), None)
        if image is None:
            raise UserError(f"dataset {root}: {listing.name} lists {name!r}, which is not in JPEGImages")
        objects = root / "SegmentationObject" / f"{name}.png"
        try:
            classes = _read_mask(root / "SegmentationClass" / f"{name}.png")
            yield image, from_masks(classes, _read_mask(objects) if objects.is_file() else None)
        except (OSError, ValueError) as error:
            raise UserError(f"dataset {root}: the masks of {name!r} cannot be read ({error})") from None


def _write_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values, mode="L")
    picture.putpalette(palette())
    picture.save(path)


def _read_mask(path: Path) -> np.ndarray:
    """uint8 [H, W]: palette indices, or grey values."""
    with Image.open(path, formats=["PNG"]) as picture:
        if picture.mode not in ("P", "L"):
            raise ValueError(f"{path.name} has colours ({picture.mode}), not a palette or grey values")
        return np.asarray(picture)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
