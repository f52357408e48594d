"""From an image file, whatever its format and depth, to uint8 RGB: the one reader for everything that shows us pixels.

Formats: PNG, JPEG (MPO too), WebP, BMP, TIFF, GIF, AVIF, JPEG 2000; HEIC where pillow-heif is installed. The content
says which one a file is, not its suffix, and no other decoder of Pillow's is ever called. Animations and files of
several pages give their first picture.

    8 bits per channel     as they are
    more (16, 32, float)   scaled to 8 bits, all channels alike, see `display_range`
    transparency           over white
    CMYK, YCbCr, palettes  Pillow's conversion; colour profiles have no effect
    EXIF orientation       turned upright
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffugen.errors import UserError, reason_of
from diffugen.naming import text_of

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".jpc"),
}
"""Pillow's names of the formats that are always read, and the suffixes of their files."""

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_REMEDY = "HEIC needs `pip install 'diffugen[heif]'`"

MAX_PIXELS = 250_000_000
"""Largest image that is read unless `DIFFUGEN_MAX_PIXELS` says otherwise: the largest phones take 200 megapixels."""

# Pillow warns about damaged metadata, which change no pixel, and about large images, which are refused anyway.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # of TIFF
_ROWS = 256  # scaled at a time


def decode(path: Path, what: str = "image") -> np.ndarray:
    """Read an image file as uint8 RGB [H, W, 3]; `what` it is comes first in messages.

    Raises:
        UserError: the file is missing, no regular file, not of a known format, broken, or larger than `max_pixels`.
    """
    path = Path(path)
    with _decoder_errors(path, what), _opened(path) as image:
        raw = _raw_mode(image)
        _check_whole(image)
        image.load()
        values = _deep_values(path, image, raw)
        rgb = _as_rgb(image) if values is None else _deep_as_rgb(values, image)
        turn = _TURNS.get(_orientation(image))  # asked after loading: a TIFF is upright then
        return np.array(rgb if turn is None else rgb.transpose(turn))


def stores_as_it_is(path: Path) -> bool:
    """Whether OpenCV and ultralytics read the same pixels from a file as `decode`, so that a dataset may have a copy.

    They do for 8-bit PNG, JPEG, WebP and BMP files whose suffix says so, without transparency, frames, or a turn by
    metadata. (They also re-encode JPEG files that do not end with the end marker.)

    Raises:
        UserError: as `decode`.
    """
    path = Path(path)
    with _decoder_errors(path, "image"), _opened(path) as image:
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        return (
            kind in ("PNG", "JPEG", "WEBP", "BMP")
            and path.suffix.lower() in FORMATS[kind]
            and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp")
            and image.mode in ("1", "L", "P", "RGB")
            and not image.has_transparency_data
            and "16" not in _raw_mode(image)
            and (kind == "JPEG" or not getattr(image, "is_animated", False))
            and image.getexif().get(_ORIENTATION, 1) == 1
            and (kind != "JPEG" or _ends_with(path, b"\xff\xd9"))
        )


@cache
def known_suffixes() -> frozenset[str]:
    """Suffixes of the files that `decode` reads, lower case; those of HEIC only where it can be read."""
    suffixes = {suffix for group in FORMATS.values() for suffix in group}
    return frozenset(suffixes | set(HEIF_SUFFIXES if _has_heif() else ()))


@cache
def max_pixels() -> int:
    """The largest number of pixels that an image may have: `MAX_PIXELS` or the environment's `DIFFUGEN_MAX_PIXELS`.

    Raises:
        UserError: the environment variable is no positive whole number.
    """
    text = os.environ.get("DIFFUGEN_MAX_PIXELS", str(MAX_PIXELS))
    if not text.isdecimal() or not int(text):
        raise UserError(
            f"environment variable DIFFUGEN_MAX_PIXELS is {text!r}, no whole number above 0; change or unset it"
        )
    Image.MAX_IMAGE_PIXELS = int(text)  # for everybody in this process; Pillow refuses above twice that
    return int(text)


def display_range(low: float, high: float, *, whole: bool) -> tuple[float, float]:
    """Which values of an image of more than 8 bits become 0 and 255; `low` and `high` are its extremes.

    From 0 to the largest number of as many bits as the largest value has, at least 8: 4095 for 12 bits in 16 (for
    floats up to 1: 1). So an image keeps its black and looks the same however many bits it is stored with. Values that
    use less than a quarter of that (temperatures, depths), or some of which are negative, go from the lowest to the
    highest instead.
    """
    if low >= 0:
        top = 1.0 if high <= 1 and not whole else 2.0 ** max(8, int(high).bit_length()) - 1
        if low == high or high - low >= top / 4:
            return 0.0, top
    return low, high


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scale values of more than 8 bits, of any shape, to uint8 by their own range; what is not finite becomes 0 or 255.

    See `display_range`.
    """
    whole = values.dtype.kind in "iu"
    finite = values if whole else values[np.isfinite(values)]
    low, high = display_range(*((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)), whole=whole)
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):  # float64 copies of a large image would take gigabytes
        with np.errstate(invalid="ignore"):  # signalling NaNs
            rows = values[start : start + _ROWS].astype(np.float64)
        rows = np.nan_to_num(rows, nan=low, posinf=high, neginf=low)
        share = np.clip((rows - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)
        scaled[start : start + _ROWS] = np.rint(share * 255)
    return scaled


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file as Pillow's lazy image, opened by one of the accepted decoders, within bounds."""
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe waits for ever
        raise _Refused("no regular file")
    limit = max_pixels()
    with path.open("rb") as file:
        try:
            image = Image.open(file, formats=[*FORMATS, *(["HEIF"] if _has_heif() else [])])
        except Image.UnidentifiedImageError:
            raise _Refused(_no_known_format(path)) from None
        with image:
            if image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image


class _Refused(Exception):
    """Why a file is not read."""


@contextmanager
def _decoder_errors(path: Path, what: str) -> Iterator[None]:
    """Decoders raise nearly anything about a damaged file; all of it becomes one sentence."""
    name = f"{what} {text_of(path)}"
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{name} does not exist and cannot be read; give the path of an image") from None
    except PermissionError:
        raise UserError(f"{name} cannot be read (permission denied); change its permissions") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{name} has more than {max_pixels()} pixels; make it smaller, or set environment variable "
            "DIFFUGEN_MAX_PIXELS to a larger number"
        ) from None
    except Exception as error:
        reason = reason_of(error)[:200]
        raise UserError(f"{name} cannot be read (not a readable image: {reason}); replace or remove it") from None


def _no_known_format(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp" and not _has_heif():
        return HEIF_REMEDY
    return "no image of a known format"


@cache
def _has_heif() -> bool:
    try:
        import pillow_heif  # an extra
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _check_whole(image: Image.Image) -> None:
    """Refuse a TIFF whose strips do not cover it: Pillow leaves the rest black."""
    areas = ((right - left) * (lower - upper) for _, (left, upper, right, lower), *_ in getattr(image, "tile", ()))
    if image.format == "TIFF" and sum(areas) < image.width * image.height:
        raise _Refused("its strips do not cover it")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata do not make an image unreadable
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    """An image of 8-bit channels as RGB, over white where it is transparent."""
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _deep_as_rgb(values: np.ndarray, image: Image.Image) -> Image.Image:
    """The same from values of more than 8 bits, [H, W], [H, W, 3] or with alpha [H, W, 4]."""
    if values.ndim == 3 and values.shape[2] == 4:
        alpha = (values[..., 3:] >> 8).astype(np.uint8)
        pixels = np.concatenate([to_8_bits(values[..., :3]), alpha], axis=2)
        return _as_rgb(Image.fromarray(pixels, "RGBA"))
    pixels = to_8_bits(values)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
        pixels = 255 - pixels  # white is zero; Pillow turns it round for 8 bits only
    clear = image.info.get("transparency")
    if isinstance(clear, int | tuple):  # a grey value or colour that stands for nothing
        pixels[np.atleast_3d(values == np.array(clear)).all(axis=2)] = 255
    return Image.fromarray(pixels).convert("RGB")


def _deep_values(path: Path, image: Image.Image, raw: str) -> np.ndarray | None:
    """The values of a loaded image with more than 8 bits per channel; None for one of 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if raw not in _OTHER_HALF:
        return None
    # Pillow keeps the upper half of each value only; given the other byte order, it keeps the lower half.
    upper = np.asarray(image)
    with _opened(path) as opened:
        again: Any = opened
        again.tile = [_retold(tile, _OTHER_HALF[raw]) for tile in again.tile]
        again.load()
        lower = np.asarray(again)
    if raw.startswith("LA"):  # read as four bytes: grey and alpha, upper and lower half of each
        both = lower.astype(np.uint16)
        grey, alpha = (both[..., part] << 8 | both[..., part + 1] for part in (0, 2))
        return np.stack([grey, grey, grey, alpha], axis=2)
    return upper.astype(np.uint16) << 8 | lower


_OTHER_HALF = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if np.little_endian else "L"))
} | {"LA;16B": "RGBA"}


def _raw_mode(image: Image.Image) -> str:
    """How an image that is not loaded yet lies in its file, such as RGB;16B; "" where the format does not say."""
    tiles = getattr(image, "tile", None)
    arguments: Any = tiles[0].args if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _retold(tile: Any, raw: str) -> Any:
    return tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)


def _ends_with(path: Path, ending: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(-len(ending), os.SEEK_END)
        return file.read() == ending
