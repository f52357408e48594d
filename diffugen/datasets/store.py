"""What every dataset format needs to store a sample: the checks, and the image's file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from diffugen.errors import UserError
from diffugen.files import link_or_copy
from diffugen.images import write_image
from diffugen.naming import is_class_name
from diffugen.sample import Sample

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def check_class_names(class_names: Sequence[str], place: str = "") -> None:
    """Refuse names of classes that a file with a class per line would split.

    Args:
        class_names: of a dataset.
        place: what the message begins with.

    Raises:
        UserError: one is no line of text.
    """
    for name in class_names:
        if not is_class_name(name):
            raise UserError(f"{place}the class {name[:60]!a} is no line of text that can be written; rename it")


def check_sample(sample: Sample, class_names: Sequence[str]) -> None:
    """Refuse a sample that cannot be stored.

    Raises:
        ValueError: its name or split is no plain file name, or a class id has no name.
    """
    if not sample.name or any(Path(n).name != n or n == ".." for n in (sample.name, sample.split)):
        raise ValueError(f"name={sample.name!r}, split={sample.split!r}: both must be plain file names")
    num_classes = len(class_names)
    if any(not 0 <= class_id < num_classes for class_id in sample.class_ids):
        raise ValueError(f"{sample.name}: class ids {sample.class_ids} must lie in [0, {num_classes})")


def store_image(folder: Path, sample: Sample, *, link: bool) -> str:
    """Put a sample's image into a folder; returns the file's name.

    Args:
        folder: made where it is missing.
        sample: an image file keeps its type; pixels become a PNG.
        link: hard-link image files (they are copied where the file system cannot link).

    Raises:
        ValueError: the folder has an image of this name.
    """
    suffix = sample.image.suffix if isinstance(sample.image, Path) else ".png"
    if any((folder / f"{sample.name}{known}").exists() for known in {suffix, *IMAGE_SUFFIXES}):
        raise ValueError(f"name={sample.name!r} comes twice in the split {sample.split!r}; names must be unique")
    target = folder / f"{sample.name}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(sample.image, Path):
        (link_or_copy if link else shutil.copyfile)(sample.image, target)
    else:
        write_image(target, sample.image)
    return target.name
