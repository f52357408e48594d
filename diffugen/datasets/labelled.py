"""What the readers of all formats hand on: an image's file and its labels, before any pixel is read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from diffugen.errors import UserError
from diffugen.instances import Instances

logger = logging.getLogger(__name__)

MAX_MASK_BYTES = 2**32
"""What the masks of one image may take in memory, a byte per pixel and object: a few lines of text could ask for any
amount."""

Labels = Callable[[tuple[int, int]], Instances]


class LeftOut:
    """What a reader leaves out of a file or folder, reported in one warning once all is read.

    Args:
        path: of the file or folder.
        what: it leaves some out of, such as "its regions".
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, reason: str, example: object) -> None:
        """Count one; the first of each reason is named."""
        self.counts[reason] += 1
        self.first.setdefault(reason, str(example)[:60])

    def warn(self) -> None:
        """Say what was left out, by reason; nothing if all was read."""
        if self.counts:
            reasons = (f"{count} {reason} (first: {self.first[reason]})" for reason, count in self.counts.items())
            logger.warning("%s: of %s left out: %s", self.path, self.what, "; ".join(reasons))


@dataclass(frozen=True)
class Labelled:
    """An image and its labels in the files of a dataset.

    Attributes:
        path: the image's file.
        key: its path within the split, with forward slashes, by which other datasets of the same images know it.
        labels: its instances, given the height and width of the image, which alone decides how large masks are.
        provenance: what the dataset knows of its origin.
        size_hw: its height and width, where the dataset states them.
        left_out: where `labels` counts what it leaves out.
    """

    path: Path
    key: str
    labels: Labels
    provenance: dict[str, Any] = field(default_factory=dict)
    size_hw: tuple[int, int] | None = None
    left_out: LeftOut | None = None


def inside(folder: Path, name: object, what: str) -> Path:
    """The file in a folder that a dataset names; only files of the folder are read.

    Args:
        folder: where the dataset's images are.
        name: as the file says it, with slashes of either kind.
        what: where it stands, for the message.

    Raises:
        UserError: it is no relative path, or leads out of the folder.
    """
    unusual = isinstance(name, str) and any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)
    if not isinstance(name, str) or not name.strip() or unusual or len(name) > 4096:
        raise UserError(f"{what} is {str(name)[:60]!a}, which is no file name; write the path of an image")
    path = PurePosixPath(name if PurePosixPath(name).is_absolute() else name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or not path.name:
        raise UserError(
            f"{what} is {name[:60]!r}, outside {folder}; only files in that folder are read, so make the path "
            "relative to it (--images names the folder of a JSON file's images)"
        )
    return Path(folder) / path


def stacked(masks: Iterable[np.ndarray], size_hw: tuple[int, int], count: int, what: str) -> np.ndarray:
    """Masks bool [count, H, W] in one array, if it fits into `MAX_MASK_BYTES`.

    Raises:
        UserError: it does not; names what the masks belong to.
    """
    height, width = size_hw
    if count * height * width > MAX_MASK_BYTES:
        raise UserError(
            f"{what} has {count} objects on {width}x{height} pixels, whose masks take more than "
            f"{MAX_MASK_BYTES // 2**30} GiB; split the image, or leave some out"
        )
    result = np.zeros((count, *size_hw), bool)
    for number, mask in enumerate(masks):
        result[number] = mask
    return result


@dataclass(frozen=True)
class Drawn:
    """An object of an annotation file.

    Attributes:
        where: it stands, for messages.
        class_id: its class.
        mask: draws it for an image of the given height and width: bool [H, W], or the reason why it has no pixels.
        score: its confidence.
        group: objects of one group are parts of one object; None for a group of its own.
    """

    where: str
    class_id: int
    mask: Callable[[tuple[int, int]], np.ndarray | str]
    score: float = 1.0
    group: Hashable = None


def instances_of(objects: Sequence[Drawn], size_hw: tuple[int, int], what: str, left_out: LeftOut) -> Instances:
    """The objects as instances; those without pixels are counted in `left_out`.

    Raises:
        UserError: as `stacked`; names `what` they belong to.
    """
    masks = stacked((), size_hw, len(objects), what)
    kept: list[Drawn] = []
    rows: dict[Hashable, int] = {}
    for number, drawn in enumerate(objects):
        mask = drawn.mask(size_hw)
        if isinstance(mask, str):
            left_out.add(mask, drawn.where)
            continue
        row = rows.setdefault(("own", number) if drawn.group is None else ("group", drawn.group), len(kept))
        masks[row] |= mask
        if row == len(kept):
            kept.append(drawn)
    return Instances.from_masks(masks[: len(kept)], [drawn.class_id for drawn in kept], [drawn.score for drawn in kept])
