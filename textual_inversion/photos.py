"""The photos of a concept: found, read whatever their format, with the captions that the user wrote for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffugen.errors import UserError
from diffugen.files import read_text
from diffugen.images import list_images, read_image


def find_photos(folder: Path) -> list[Path]:
    """The photos of a concept, in the order of their names; other files but captions are named in a warning.

    Raises:
        UserError: the folder does not exist or has no photo in it.
    """
    return list_images(folder, what="concept.photos", captions=True)


def load_photo(path: Path) -> np.ndarray:
    """A photo as uint8 RGB [H, W, 3], see `diffugen.decoding`.

    Raises:
        UserError: the file is not a readable image.
    """
    return read_image(path, "concept.photos: image")


def caption_file(photo: Path) -> Path:
    """Where the user may write what a photo shows: `piano.txt` beside `piano.jpg`."""
    return photo.with_suffix(".txt")


def read_caption(photo: Path, placeholder_token: str) -> str | None:
    """The user's caption of a photo as a template with one {} for the token, or None without one.

    In the file the object is {} or the token itself: "a red {} on a beach at sunset".

    Raises:
        UserError: the file is not one line of text with the object in it once.
    """
    path = caption_file(photo)
    if not path.is_file():
        return None
    text = read_text(path).strip().replace(placeholder_token, "{}")
    if text.count("{}") != 1 or len(text.splitlines()) != 1 or set("{}") & set(text.replace("{}", "")):
        raise UserError(
            f"concept.photos: caption {str(path)!r} must be one line with exactly one {{}}, where "
            f"{placeholder_token} goes (it is {text[:60]!r})"
        )
    return text


def captions_of(photos: Sequence[Path], templates: Sequence[str], placeholder_token: str) -> list[tuple[str, ...]]:
    """For every photo the templates of its captions: the user's own where there is one, else all of them."""
    written = (read_caption(photo, placeholder_token) for photo in photos)
    return [tuple(templates) if caption is None else (caption,) for caption in written]


def digest(photos: Sequence[Path]) -> str:
    """A short fingerprint of the photos' and their captions' names and bytes."""
    total = hashlib.sha256()
    for path in (file for photo in photos for file in (photo, caption_file(photo)) if file.is_file()):
        total.update(os.fsencode(path.name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
