"""Labelled images on their way into a dataset or out of one, and the files of their pixels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.images import read_image, write_image
from diffugen.instances import Instances

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class DatasetItem:
    """One labelled image.

    Attributes:
        name: unique within its split.
        image: its file (stored once, then linked) or uint8 [H, W, 3] RGB.
        instances: its labels.
        split: "train", "val" or "test".
        provenance: how it came about, as far as that is known: model, revision, prompt, seed, task, parent,
            labeler and the like.
    """

    name: str
    image: Path | np.ndarray
    instances: Instances
    split: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image


def check_item(item: DatasetItem, class_names: Sequence[str]) -> None:
    """Refuse an item that cannot be stored.

    Raises:
        ValueError: its name or split is no plain file name, or a class id has no name.
    """
    if not item.name or Path(item.name).name != item.name or Path(item.split).name != item.split:
        raise ValueError(f"name={item.name!r}, split={item.split!r}: both must be plain file names")
    class_ids, num_classes = item.instances.class_ids, len(class_names)
    if len(class_ids) and not 0 <= class_ids.min() <= class_ids.max() < num_classes:
        raise ValueError(f"{item.name}: class ids {class_ids} must lie in [0, {num_classes})")


def store_image(folder: Path, item: DatasetItem, *, link: bool) -> str:
    """Put an item's image into a folder; returns the file's name.

    Args:
        folder: made where it is missing.
        item: an image file keeps its type; pixels become a PNG.
        link: hard-link image files (they are copied where the file system cannot link).

    Raises:
        ValueError: the folder has an image of this name.
    """
    suffix = item.image.suffix if isinstance(item.image, Path) else ".png"
    if any((folder / f"{item.name}{known}").exists() for known in {suffix, *IMAGE_SUFFIXES}):
        raise ValueError(f"name={item.name!r} comes twice in the split {item.split!r}; names must be unique")
    target = folder / f"{item.name}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(item.image, Path):
        _link_or_copy(item.image, target, link)
    else:
        write_image(target, item.image)
    return target.name


def _link_or_copy(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)
