"""Images in files: listing, reading and writing them."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from diffugen.decoding import HEIF_REMEDY, HEIF_SUFFIXES, decode, known_suffixes
from diffugen.errors import UserError
from diffugen.files import write_files
from diffugen.instances import Instances
from diffugen.naming import text_of

logger = logging.getLogger(__name__)

BLANK = "blank"
"""Why an image that `is_blank` is not kept."""

_BLANK_STD = 1.0  # grey levels; a photo of the night sky has more

RECURSIVE_HINT = "which --recursive reads"


def list_images(
    folder: Path, *, recursive: bool = False, what: str = "image folder", captions: bool = False, hint: str = ""
) -> list[Path]:
    """The image files of a folder, by name, of every format that `read_image` reads.

    What else the folder holds is named in one warning: other files by their suffixes, and sub-folders. Hidden files and
    folders are passed over.

    Args:
        folder: of the images.
        recursive: those of its sub-folders as well (of linked ones too; each folder is read once).
        what: the setting or argument that named the folder, for messages.
        captions: a text file `a.txt` beside `a.jpg` belongs to it.
        hint: how to have sub-folders read, for the warning.

    Raises:
        UserError: if it is not a folder, cannot be read, or has no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{what} {folder} {state}; give a folder of images")
    try:
        images, others, folders = _scan(folder, recursive)
    except OSError as error:
        raise UserError(f"{what} {folder} cannot be read ({error.strerror}); change its permissions") from None
    if captions:
        texts = {path.with_suffix(".txt") for path in images}
        others = [path for path in others if path not in texts]
    left_out = _left_out(others, folders, hint)
    if not images:
        found = f" ({left_out})" if left_out else ""
        raise UserError(f"{what} {folder} has no images{found}; put .jpg, .png or other image files into it")
    if left_out:
        _warn_once(f"{what} {folder}: {left_out}")
    return images


def _scan(folder: Path, recursive: bool) -> tuple[list[Path], list[Path], list[Path]]:
    """The images of a folder, its other files, and the sub-folders that are not read; sorted."""
    images: list[Path] = []
    others: list[Path] = []
    unread: list[Path] = []
    waiting, seen = [folder], {folder.resolve()}
    while waiting:
        for path in waiting.pop().iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if recursive and path.resolve() not in seen:
                    seen.add(path.resolve())
                    waiting.append(path)
                elif not recursive:
                    unread.append(path)
            elif path.suffix.lower() in known_suffixes() and path.is_file():  # no pipe, device or dangling link
                images.append(path)
            else:
                others.append(path)
    return sorted(images), sorted(others), sorted(unread)


def _left_out(others: Sequence[Path], folders: Sequence[Path], hint: str) -> str:
    """What a folder holds that is not read: how much of each kind, and the names of some."""
    kinds: dict[str, list[Path]] = {}
    for path in others:
        kind = (path.suffix.lower() or "without suffix") if path.is_file() else "no regular file"
        kinds.setdefault(kind, []).append(path)
    parts = [f"{len(paths)} {kind} ({_names(paths)})" for kind, paths in sorted(kinds.items())]
    if any(kind in HEIF_SUFFIXES for kind in kinds):
        parts.append(HEIF_REMEDY)
    if folders:
        parts.append(f"{len(folders)} sub-folders ({_names(folders)}){f', {hint}' if hint else ''}")
    return f"left out {'; '.join(parts)}" if parts else ""


def _names(paths: Sequence[Path], most: int = 3) -> str:
    return ", ".join([text_of(path.name) for path in paths[:most]] + ["..."] * (len(paths) > most))


@cache
def _warn_once(message: str) -> None:
    """Warn once in a process, however often a folder is listed."""
    logger.warning("%s", message)


def read_image(path: Path, what: str = "image") -> np.ndarray:
    """An image file of any format as uint8 RGB [H, W, 3], upright; see `diffugen.decoding`.

    Raises:
        UserError: if the file is missing, broken or not an image; `what` it is comes first.
    """
    return decode(path, what)


def readable_images(
    paths: Iterable[Path], read: Callable[[Path], np.ndarray] = read_image
) -> Iterator[tuple[Path, np.ndarray]]:
    """Each image that can be read, with its pixels; see `readable`."""

    def attempt(path: Path) -> np.ndarray | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    return readable((path, attempt(path)) for path in paths)


Key = TypeVar("Key")
Result = TypeVar("Result")


def readable(results: Iterable[tuple[Key, Result | UserError]]) -> Iterator[tuple[Key, Result]]:
    """What came of each image that can be read; those that cannot are named in one warning at the end.

    One damaged file should not stop the work on thousands.

    Args:
        results: of each image, an error for one that cannot be read.

    Raises:
        UserError: none of them can be read; the reason of the first.
    """
    broken: list[UserError] = []
    total = 0
    for path, result in results:
        total += 1
        if isinstance(result, UserError):
            broken.append(result)
        else:
            yield path, result
    if broken and len(broken) == total:
        raise broken[0]
    if broken:
        more = f" (and {len(broken) - 3} more)" if len(broken) > 3 else ""
        logger.warning("left out %d of %d images: %s%s", len(broken), total, "; ".join(map(str, broken[:3])), more)


def is_blank(image: np.ndarray) -> bool:
    """Whether uint8 [H, W, 3] is black or of one colour all over, but for a grey level or so."""
    return bool((image.std(axis=(0, 1)) < _BLANK_STD).all())


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as the path's suffix says (PNG is exact)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 RGB [H, W, 3], or uint8 or uint16 grey [H, W], atomically."""
    write_files({path: png_bytes(pixels)})


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 RGB [H, W, 3], or uint8 or uint16 grey [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def index_map(instances: Instances) -> np.ndarray:
    """uint16 [H, W]: 0 where nothing is, k + 1 on instance k; where masks overlap the higher score wins."""
    numbers = np.zeros(instances.size_hw, np.uint16)
    for index in np.argsort(instances.scores, kind="stable"):
        numbers[instances.masks[index]] = index + 1
    return numbers
