"""Images in files: listing, reading and writing them, and drawing instances onto them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from diffugen.errors import UserError
from diffugen.files import atomic_path
from diffugen.instances import Instances

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

_COMMON_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_EXIF_ORIENTATION = 0x0112

# Okabe and Ito's palette, which colour-blind people can tell apart
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, by name; hidden files and other kinds are passed over.

    Raises:
        UserError: if it is not a folder or has no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"image folder {folder} does not exist; give a folder of photos")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not paths:
        raise UserError(f"image folder {folder} has no images; put {', '.join(SUFFIXES)} files into it")
    return paths


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 RGB [H, W, 3], turned as its camera says.

    Raises:
        UserError: if the file is missing, broken or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist and cannot be read; give the path of an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"image {path} cannot be read (not a readable image: {_first_line(error)}); replace or remove it"
        ) from None


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its stem, or with its suffix where another file (a.jpg, a.png) has the same."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else path.name.replace(".", "_") for path in paths]


def stores_as_it_is(path: Path) -> bool:
    """Whether everybody reads an image file's pixels as `read_image` does: a common format, not turned by its
    metadata."""
    with Image.open(path) as image:
        return path.suffix.lower() in _COMMON_SUFFIXES and image.getexif().get(_EXIF_ORIENTATION, 1) == 1


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as the path's suffix says (PNG is exact)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 RGB [H, W, 3], or uint8 or uint16 grey [H, W], atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def draw_instances(image: np.ndarray, instances: Instances, class_names: Sequence[str]) -> np.ndarray:
    """A copy of the image, uint8 RGB [H, W, 3], with tinted masks, outlines, class names and scores."""
    drawn = image.copy()
    height, width = instances.size_hw
    scale = max(0.3, min(height, width) / 900)
    for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
        colour = PALETTE[int(class_id) % len(PALETTE)]
        drawn[mask] = (0.6 * drawn[mask] + 0.4 * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, colour, max(1, round(scale * 2)))
    for (x, y, *_), class_id, score in zip(instances.xyxy, instances.class_ids, instances.scores, strict=True):
        text = f"{class_names[int(class_id)]} {score:.2f}"
        (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        left = int(max(0, min(x, width - text_width)))
        corner = (left, int(max(text_height + 1, y - 2)))
        cv2.putText(drawn, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(drawn, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def index_map(instances: Instances) -> np.ndarray:
    """uint16 [H, W]: 0 where nothing is, k + 1 on instance k; where masks overlap the higher score wins."""
    numbers = np.zeros(instances.size_hw, np.uint16)
    for index in np.argsort(instances.scores, kind="stable"):
        numbers[instances.masks[index]] = index + 1
    return numbers


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
