"""One picture in every format and depth that image files have."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 40


def picture() -> np.ndarray:
    """uint8 [24, 40, 3] with every value from 0 to 255 among its greys."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    grey = (rows * WIDTH + columns) * 255 // (HEIGHT * WIDTH - 1)
    return np.stack([grey, grey[::-1], np.roll(grey, 7, axis=1)], axis=2).astype(np.uint8)


def grey() -> np.ndarray:
    """uint8 [24, 40]: the red of the picture."""
    return picture()[..., 0]


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def by_opencv(pixels: np.ndarray, suffix: str) -> bytes:
    """The bytes of a file that OpenCV writes, which knows colours of 16 bits: uint16 [H, W, 3 or 4] RGB."""
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return cv2.imencode(suffix, np.ascontiguousarray(pixels[..., order]))[1].tobytes()


def deep(values: np.ndarray, bits: int) -> np.ndarray:
    """8-bit values as uint16 of so many bits, from 0 to the largest."""
    return np.rint(values / 255 * (2**bits - 1)).astype(np.uint16)


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    """RGB with an opaque left and a clear right half."""
    alpha = np.zeros(pixels.shape[:2], pixels.dtype)
    alpha[:, : WIDTH // 2] = np.iinfo(pixels.dtype).max
    return np.dstack([pixels, alpha])


EXACT: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(picture(), "PNG"),
    "bmp": lambda: saved(picture(), "BMP"),
    "tiff": lambda: saved(picture(), "TIFF"),
    "tiff-lzw": lambda: saved(picture(), "TIFF", compression="tiff_lzw"),
    "webp-lossless": lambda: saved(picture(), "WEBP", lossless=True),
    "jp2": lambda: saved(picture(), "JPEG2000"),
    "png-opaque": lambda: saved(Image.fromarray(picture()).convert("RGBA"), "PNG"),
    "png-16": lambda: by_opencv(deep(picture(), 16), ".png"),
    "tiff-16": lambda: by_opencv(deep(picture(), 16), ".tiff"),
    "png-16-opaque": lambda: by_opencv(
        np.dstack([deep(picture(), 16), np.full((HEIGHT, WIDTH), 65535, np.uint16)]), ".png"
    ),
}
"""Files of the picture without any loss."""

GREYS: dict[str, Callable[[], bytes]] = {
    "png-8": lambda: saved(grey(), "PNG"),
    "gif": lambda: saved(grey(), "GIF"),
    "png-palette": lambda: saved(Image.fromarray(grey()).convert("P"), "PNG"),
    "png-16": lambda: saved(deep(grey(), 16), "PNG"),
    "jp2-16": lambda: saved(deep(grey(), 16), "JPEG2000"),
    "tiff-16": lambda: saved(deep(grey(), 16), "TIFF"),
    "tiff-16-lzw": lambda: saved(deep(grey(), 16), "TIFF", compression="tiff_lzw"),
    "png-12": lambda: saved(deep(grey(), 12), "PNG"),
    "tiff-10": lambda: saved(deep(grey(), 10), "TIFF"),
    "tiff-32": lambda: saved((grey().astype(np.int64) * 16_843_009 // 2).astype(np.int32), "TIFF"),
    "tiff-float": lambda: saved(grey().astype(np.float32) / 255, "TIFF"),
    "tiff-float-255": lambda: saved(grey().astype(np.float32), "TIFF"),
    "tiff-16-white-is-zero": lambda: saved(65535 - deep(grey(), 16), "TIFF", tiffinfo={262: 0}),
}
"""Files of its grey that show the same, but for the rounding of fewer bits."""

OTHERS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(picture(), "JPEG"),
    "jpeg-cmyk": lambda: saved(Image.fromarray(picture()).convert("CMYK"), "JPEG"),
    "jpeg-progressive": lambda: saved(picture(), "JPEG", progressive=True),
    "mpo": lambda: saved(picture(), "MPO", save_all=True, append_images=[Image.fromarray(picture()[::-1])]),
    "avif": lambda: saved(picture(), "AVIF"),
    "webp": lambda: saved(picture(), "WEBP"),
    "webp-clear": lambda: saved(with_alpha(picture()), "WEBP"),
    "apng": lambda: saved(picture(), "PNG", save_all=True, append_images=[Image.fromarray(picture()[::-1])]),
    "gif-moving": lambda: saved(picture(), "GIF", save_all=True, append_images=[Image.fromarray(picture()[::-1])]),
    "png-la": lambda: saved(Image.fromarray(grey()).convert("LA"), "PNG"),
    "tiff-jpeg": lambda: saved(picture(), "TIFF", compression="jpeg"),
    "tiff-deflate": lambda: saved(picture(), "TIFF", compression="tiff_adobe_deflate"),
}
