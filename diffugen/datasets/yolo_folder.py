"""Datasets in YOLO's layout: where data.yaml's images are, and which label file belongs to which; found as ultralytics
finds them, and in a few places more where it would take images for background in silence."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from diffugen.class_maps import renumbered
from diffugen.datasets import data_yaml, yolo
from diffugen.datasets.labelled import Labelled, LeftOut
from diffugen.decoding import known_suffixes
from diffugen.errors import UserError
from diffugen.files import read_text
from diffugen.instances import Instances
from diffugen.naming import text_of

logger = logging.getLogger(__name__)

_BESIDE_IMAGES = {".txt", ".json", ".xml", ".cache", ".npy", ".yaml"}
_BOX_VALUES = 5  # of a line: class, centre, width and height
_IMAGES = re.compile(rf"{re.escape(os.sep)}images(?={re.escape(os.sep)})", re.IGNORECASE)


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (Path(root) / data_yaml.NAME).is_file()


def class_names_of(root: Path, wanted: Sequence[str] | None = None) -> list[str]:
    """The class names."""
    return data_yaml.read(root).names


def splits_of(root: Path) -> list[str]:
    """The splits."""
    return list(data_yaml.read(root).splits)


def image_folders(root: Path) -> set[Path]:
    """The folders of the splits' images that are there, which may lie anywhere."""
    settings = data_yaml.read(root)
    found: set[Path] = set()
    for split in settings.splits:
        with suppress(UserError):  # whoever reads the split reports it
            for place in settings.places(split):
                if place.is_dir() or place.suffix.lower() in known_suffixes():
                    found.add(place if place.is_dir() else place.parent)
                else:
                    lines = read_text(place).splitlines()
                    found |= {image.parent for line in lines if (image := _image_of(line.strip(), place, root))}
    return found


def read(root: Path, split: str, class_names: Sequence[str] | None = None) -> Iterator[Labelled]:
    """Each image of a split with the labels of its label file; no label file means no objects, and is counted.

    Raises:
        UserError: data.yaml or a place that it names is missing or broken.
    """
    settings = data_yaml.read(root)
    images = images_of(settings.places(split), Path(root))
    labels, odd = {path: label_file(path) for path in images}, _OddLabels(Path(root), f"split {split}")
    _warn_of_missing(Path(root), split, labels)
    for path, key in images.items():
        read_labels = functools.partial(_labels, labels[path], settings.names, class_names or settings.names, odd)
        yield Labelled(path, key, read_labels, left_out=odd)


class _OddLabels(LeftOut):
    """Counts labels that are read, but hardly meant so: boxes, and single pixels."""

    def warn(self) -> None:
        """Say how many there were, if any."""
        for reason, count in self.counts.items():
            logger.warning("dataset %s, %s: %d labels %s (first: %s)", self.path, self.what, count, reason,
                           self.first[reason])  # fmt: skip


def images_of(places: Sequence[Path], root: Path) -> dict[Path, str]:
    """The images of a split with their paths within it.

    Args:
        places: what data.yaml names: folders (with their sub-folders), text files with a path per line, or images.
        root: the dataset's folder, from which a text file's paths may count.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += _walk(place)
        else:
            found += [place] if place.suffix.lower() in known_suffixes() else _listed(place, root)
    if len(places) == 1 and places[0].is_dir():
        above = places[0]
    else:
        above = Path(os.path.commonpath([path.parent for path in found])) if found else Path(root)
    return {path: path.relative_to(above).as_posix() for path in found}


def label_file(image: Path) -> Path | None:
    """The label file of an image: ultralytics' place for it, else one that differs from it in case or links only.

    ultralytics' rule: the last folder called `images` of the path becomes `labels`; without one, beside the image.
    """
    for path in dict.fromkeys((Path(os.path.abspath(image)), Path(os.path.realpath(image)))):
        for stem in _label_stems(path):
            for suffix in (".txt", ".TXT"):
                if (candidate := Path(f"{stem}{suffix}")).is_file():
                    return candidate
    return None


def _label_stems(image: Path) -> Iterator[str]:
    stem = str(image.with_suffix(""))
    found = list(_IMAGES.finditer(stem))
    if not found:
        yield stem
        return
    before, after = stem[: found[-1].start()], stem[found[-1].end() + 1 :]
    yield from (os.path.join(before, folder, after) for folder in ("labels", "Labels", "LABELS"))


def _walk(folder: Path) -> list[Path]:
    """Image files below a folder, symlinked folders too, each folder once; hidden ones are passed over."""
    seen: set[tuple[int, int]] = set()
    found = []
    for above, folders, files in os.walk(folder, followlinks=True):
        here = os.stat(above)
        if (here.st_dev, here.st_ino) in seen:  # a link to a folder above would have no end
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        found += [Path(above, name) for name in files if name[0] != "."]
    images = sorted(path for path in found if path.suffix.lower() in known_suffixes() and path.is_file())
    others = sorted(path for path in {*found} - {*images} if path.suffix.lower() not in _BESIDE_IMAGES)
    if others:
        logger.warning("%s: left out %d files that are no images of a known format (first: %s)",
                       folder, len(others), text_of(others[0].name))  # fmt: skip
    return images


def _listed(file: Path, root: Path) -> Iterator[Path]:
    """The images that a text file lists, from the file's folder, the dataset's, or the working folder."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        text = line.strip()
        if Path(text).suffix.lower() not in known_suffixes():
            if text:
                logger.warning("%s, line %d: %r is no image and is left out", file, number, text[:60])
            continue
        found = _image_of(text, file, root)
        if found is None:
            raise UserError(f"{file}, line {number}: image {text[:100]!r} does not exist; correct or remove the line")
        yield found


def _image_of(text: str, file: Path, root: Path) -> Path | None:
    bases = [file.parent] if text.startswith("./") else [root, file.parent, Path()]
    found = next((base / text for base in bases if os.path.isfile(base / text)), None)
    return None if found is None else Path(os.path.abspath(found))


def _warn_of_missing(root: Path, split: str, labels: dict[Path, Path | None]) -> None:
    missing = [path for path, file in labels.items() if file is None]
    if missing:
        place = Path(next(_label_stems(missing[0].absolute())) + ".txt")
        logger.warning(
            "dataset %s, split %s: %d of %d images have no label file and count as background (the first, %s, would "
            "have %s); if labels were forgotten, put them there",
            root, split, len(missing), len(labels), missing[0].name, place,
        )  # fmt: skip


def _labels(
    file: Path | None, names: Sequence[str], class_names: Sequence[str], odd: LeftOut, size_hw: tuple[int, int]
) -> Instances:
    if file is None:
        return Instances.empty(size_hw)
    lines = read_text(file).splitlines()
    for line in lines:
        if len(line.split()) == _BOX_VALUES:
            odd.add("have no outline, so their boxes count as masks", file.name)
    try:
        found = yolo.from_lines(lines, size_hw)
        for mask in found.masks:
            if np.count_nonzero(mask) <= 1:
                odd.add("cover a single pixel", file.name)
        return renumbered(found, names, class_names)
    except UserError as error:
        raise UserError(f"label file {file}: {error}") from None
    except ValueError as error:
        raise UserError(f"label file {file}: {error}; correct or remove the line") from None
