"""The photos of a concept: found, read whatever their format, with the captions that the user wrote for them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from diffugen.errors import UserError

logger = logging.getLogger(__name__)

PHOTO_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def find_photos(folder: Path) -> list[Path]:
    """The photos of a concept, in the order of their names.

    Raises:
        UserError: the folder does not exist or has no photo in it.
    """
    if not folder.is_dir():
        raise UserError(f"concept.photos {str(folder)!r} is not a folder; give one with photos of the object")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        known = ", ".join(sorted(suffix[1:] for suffix in PHOTO_SUFFIXES))
        raise UserError(f"concept.photos {str(folder)!r} has no photos; put some there ({known})")
    used = set(photos) | {caption_file(photo) for photo in photos}
    if others := [path.name for path in files if path not in used]:
        logger.warning("concept.photos: not photos, left out: %s", ", ".join(others))
    return photos


def load_photo(path: Path) -> np.ndarray:
    """A photo as uint8 RGB [H, W, 3]: turned as its EXIF says, over white where it is transparent.

    Raises:
        UserError: the file is not a readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()  # animations: their first frame
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_as_rgb(upright), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "no known image format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UserError(f"concept.photos: {str(path)!r} cannot be read ({reason}); replace or remove it") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip 16 bits to 8 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


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
    try:
        text = path.read_text(encoding="utf-8").strip().replace(placeholder_token, "{}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"concept.photos: caption {str(path)!r} cannot be read ({error}); write it again") from None
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
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
