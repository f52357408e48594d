"""Semantic masks as PASCAL VOC has them: palette PNGs, a pixel's value being its class.

    labels.txt                       class names, a line per pixel value: the first is the background, 0
    labelmap.txt                     the same with colours, for CVAT and Datumaro; read where there is no labels.txt
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
from functools import partial
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from diffugen.class_maps import renumbered
from diffugen.datasets.data_yaml import check_distinct
from diffugen.datasets.labelled import Labelled, inside
from diffugen.datasets.store import IMAGE_SUFFIXES, check_class_names, check_sample, store_image
from diffugen.decoding import known_suffixes, max_pixels
from diffugen.errors import UserError, reason_of
from diffugen.files import read_text
from diffugen.images import index_map
from diffugen.instances import Instances
from diffugen.naming import name_key
from diffugen.outputs import new_output
from diffugen.sample import Sample

IGNORE = 255
BACKGROUND = "background"
LABEL_MAP = "labelmap.txt"

Colour = tuple[int, int, int]


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


_PALETTE: list[Colour] = list(zip(*[iter(palette())] * 3, strict=True))


def write(
    out: Path,
    samples: Iterable[Sample],
    class_names: Sequence[str],
    *,
    link_images: bool = True,
    command: str = "dataset",
) -> None:
    """Write a folder; it appears complete or not at all, and replaces one that the same command wrote.

    Names must be unique over all splits, which share one folder; a name that comes again gets its split in front.

    Raises:
        ValueError: as `check_sample`, or if there are no samples.
        UserError: an image has more objects than fit, or the folder is not what the command wrote.
    """
    splits: dict[str, list[str]] = {}
    taken: dict[str, tuple[str, str]] = {}
    check_class_names(class_names)
    with new_output(out, command) as folder:
        for sample in samples:
            check_sample(sample, class_names)
            stored = replace(sample, name=_free_name(sample, taken))
            store_image(folder / "JPEGImages", stored, link=link_images)
            for kind, mask in zip(("Class", "Object"), to_masks(sample.instances), strict=True):
                _write_mask(folder / f"Segmentation{kind}" / f"{stored.name}.png", mask)
            splits.setdefault(sample.split, []).append(stored.name)
        if not splits:
            raise UserError("the dataset has no images; give at least one")
        _write_lines(folder / "labels.txt", [BACKGROUND, *class_names])
        _write_lines(folder / LABEL_MAP, _label_map([BACKGROUND, *class_names]))
        for split, names in splits.items():
            _write_lines(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)


def _free_name(sample: Sample, taken: dict[str, tuple[str, str]]) -> str:
    """A sample's name, with its split in front where another split has the same; noted in `taken`."""
    own = sample.split, sample.name
    names = chain([sample.name], (f"{sample.split}_{sample.name}{'_' * number}" for number in count()))
    return next(name for name in names if taken.setdefault(name_key(name), own) == own)


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (Path(root) / "ImageSets" / "Segmentation").is_dir()


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names, without the background."""
    return list(_classes(Path(root)))[1:]


def splits_of(root: Path) -> list[str]:
    """The splits."""
    return sorted(path.stem for path in (Path(root) / "ImageSets" / "Segmentation").glob("*.txt"))


def read(root: Path, split: str, class_names: Sequence[str] | None = None) -> Iterator[Labelled]:
    """Each image of a split with its objects.

    Raises:
        UserError: the split or a file is missing or broken.
    """
    root = Path(root)
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"dataset {root} has no split {split!r}; it has {', '.join(splits_of(root))}")
    seen: set[str] = set()
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        if not (name := line.strip()) or name in seen:
            continue
        seen.add(name)
        place = inside(root / "JPEGImages", name, f"{listing}, line {number}: the image")
        candidates = (place.with_name(place.name + suffix) for suffix in (*IMAGE_SUFFIXES, *sorted(known_suffixes())))
        image = next((path for path in candidates if path.is_file()), None)
        if image is None:
            raise UserError(
                f"dataset {root}: {listing.name} lists {name!r}, which is not in JPEGImages; add the image, or "
                "remove the line"
            )
        yield Labelled(image, name, partial(_instances, root, name, class_names))


def _instances(root: Path, name: str, class_names: Sequence[str] | None, size_hw: tuple[int, int]) -> Instances:
    colours = _classes(root)
    names = list(colours)[1:]
    objects = root / "SegmentationObject" / f"{name}.png"
    try:
        classes = _read_mask(root / "SegmentationClass" / f"{name}.png", list(colours.values()))
        if classes.shape != size_hw:
            raise ValueError(f"the class mask has {classes.shape[1]}x{classes.shape[0]} pixels, the image "
                             f"{size_hw[1]}x{size_hw[0]}")  # fmt: skip
        found = from_masks(classes, _read_mask(objects, _PALETTE) if objects.is_file() else None)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"dataset {root}: the masks of {name!r} cannot be read ({reason_of(error)}); replace them"
        ) from None
    try:
        return renumbered(found, names, class_names or names)
    except UserError as error:
        raise UserError(f"dataset {root}: class mask of {name!r}: {error}; add its name to labels.txt") from None


def _classes(root: Path) -> dict[str, Colour]:
    """Class name -> colour, the background first; from labels.txt, else labelmap.txt.

    Raises:
        UserError: neither is there, or what they say cannot be used.
    """
    path, default = root / "labels.txt", list(_PALETTE)
    if path.is_file():
        lines = [(name, default[number]) for number, name in enumerate(read_text(path).splitlines()[:IGNORE])]
    elif (path := root / LABEL_MAP).is_file():
        lines = []
        for line in read_text(path).splitlines():
            name, _, rest = line.partition(":")
            if name.strip() and line[0] != "#":
                lines.append((name, _colour(rest.partition(":")[0], default[min(len(lines), IGNORE)], path)))
    else:
        raise UserError(f"dataset {root} has no labels.txt; write the class names into it, a line each, "
                          f"with {BACKGROUND!r} as the first")  # fmt: skip
    if not lines or lines[0][0].strip("_").lower() not in (BACKGROUND, "unlabeled", "unlabelled", "void", "bg"):
        raise UserError(f"{path}: the first line must be {BACKGROUND!r}, which pixels of the value 0 are; add it")
    check_distinct([name for name, _ in lines], path)
    return dict(lines)


def _colour(text: str, default: Colour, path: Path) -> Colour:
    """What a line of labelmap.txt says."""
    numbers = text.split(",") if text.strip() else []
    if numbers and (len(numbers) != 3 or not all(n.strip().isdecimal() and int(n) < 256 for n in numbers)):
        raise UserError(f"{path}: {text[:40]!r} is no colour; write r,g,b with numbers from 0 to 255")
    return (int(numbers[0]), int(numbers[1]), int(numbers[2])) if numbers else default


def _label_map(names: Sequence[str]) -> list[str]:
    """The lines of labelmap.txt; names cannot hold what separates its columns."""
    colours = (",".join(map(str, colour)) for colour in _PALETTE)
    lines = (
        f"{name.replace(':', '_').replace('#', '_')}:{colour}::" for name, colour in zip(names, colours, strict=False)
    )
    return ["# label:color_rgb:parts:actions", *lines]


def _write_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values, mode="L")
    picture.putpalette(palette())
    picture.save(path)


def _read_mask(path: Path, colours: Sequence[Colour]) -> np.ndarray:
    """uint8 [H, W]: palette indices or grey values, or where a picture has colours, their places in `colours`."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no regular file")
    with Image.open(path, formats=["PNG"]) as picture:
        if picture.width * picture.height > max_pixels():
            raise ValueError(f"{path.name} has more than {max_pixels()} pixels")
        if picture.mode in ("P", "L"):
            return np.asarray(picture)
        if picture.mode not in ("RGB", "RGBA"):
            raise ValueError(f"{path.name} is of the kind {picture.mode}, without palette, grey values or colours")
        pixels = np.asarray(picture.convert("RGB")).astype(np.int32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    index = np.full(codes.shape, IGNORE, np.uint8)
    known = {r << 16 | g << 8 | b: number for number, (r, g, b) in reversed(list(enumerate(colours[:IGNORE])))}
    known.setdefault(224 << 16 | 224 << 8 | 192, IGNORE)  # VOC's colour of what is ignored
    for code in np.unique(codes).tolist():
        if code not in known:
            raise ValueError(f"{path.name} has the colour {code >> 16},{code >> 8 & 255},{code & 255} of no class")
        index[codes == code] = known[code]
    return index


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
