"""Drawing on images: instances, heat, and contact sheets of many images with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffugen.images import write_image
from diffugen.instances import Instances

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
MIN_CELL, MAX_CELL = 256, 512
"""Sides of an image on a sheet of overlays, pixels: one of 128 pixels is enlarged, so that text on it is legible."""
COLUMNS, ROWS = 5, 4
FONT_SIZE, LINE = 13, 17
INK, PAPER = (30, 30, 30), (255, 255, 255)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A class's colour, RGB."""
    return PALETTE[class_id % len(PALETTE)]


def draw_instances(
    image: np.ndarray, instances: Instances, class_names: Sequence[str] | None = None, *, scale: float = 1.0
) -> np.ndarray:
    """A copy of an image with tinted masks and outlines, a colour per class.

    Args:
        image: uint8 RGB [H, W, 3].
        instances: of that size.
        class_names: names of the class ids, which are written on the objects with their scores; None: no text.
        scale: size of the copy; text keeps its own.
    """
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = image.copy() if scale == 1 else cv2.resize(image, (width, height), interpolation=shrinks)
    for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
        colour = class_colour(int(class_id))
        shown = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        inside = shown.astype(bool)
        canvas[inside] = (0.55 * canvas[inside] + 0.45 * np.array(colour)).astype(np.uint8)
        _outline(canvas, shown, colour)
    return canvas if class_names is None else _with_names(canvas, instances, class_names, scale)


def draw_outlines(image: np.ndarray, instances: Instances) -> np.ndarray:
    """A copy of an image, uint8 RGB [H, W, 3], with white lines around masks of that size."""
    canvas = image.copy()
    for mask in instances.masks:
        _outline(canvas, mask.astype(np.uint8), (255, 255, 255))
    return canvas


def _outline(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, colour, max(1, round(min(canvas.shape[:2]) / 300)))


def _with_names(canvas: np.ndarray, instances: Instances, class_names: Sequence[str], scale: float) -> np.ndarray:
    """Names and scores at the top left of each object, on a dark ground, one beside or below another."""
    picture = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    taken: list[tuple[float, float, float, float]] = []
    for (x, y, *_), class_id, score in zip(instances.xyxy, instances.class_ids, instances.scores, strict=True):
        text = f"{class_names[int(class_id)]} {score:.2f}"
        length = pen.textlength(text, font=font) + 4
        left = max(0.0, min(float(x) * scale, picture.width - length))
        top = max(0.0, float(y) * scale - LINE)
        while any(abs(top - other[1]) < LINE and left < other[2] and other[0] < left + length for other in taken):
            top += LINE
        taken.append((left, top, left + length, top + LINE))
        pen.rectangle((left, top, left + length, top + LINE - 1), fill=INK)
        pen.text((left + 2, top), text, fill=class_colour(int(class_id)), font=font)
    return np.asarray(picture)


def heat_overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A heatmap [h, w] over a uint8 RGB [H, W, 3] image, brightest where it is highest."""
    height, width = image.shape[:2]
    heat = cv2.resize(values / max(float(values.max()), 1e-12), (width, height), interpolation=cv2.INTER_CUBIC)
    colours = cv2.applyColorMap((heat.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return (0.35 * image + 0.65 * colours).astype(np.uint8)


def contact_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = COLUMNS, lines: int = 2
) -> np.ndarray:
    """Images beside and below each other, each with a caption under it; uint8 RGB [H, W, 3].

    Args:
        pictures: uint8 RGB [h, w, 3] of any sizes; a cell is as large as the largest.
        captions: one for each; what does not fit into the cell is cut off.
        columns: cells in a row.
        lines: of a caption.
    """
    width, height = max(MIN_CELL, *(p.shape[1] for p in pictures)), max(picture.shape[0] for picture in pictures)
    columns = min(columns, len(pictures))
    num_rows = -(-len(pictures) // columns)
    gap, below = 6, lines * LINE + 4
    sheet = Image.new("RGB", (columns * (width + gap) + gap, num_rows * (height + below + gap) + gap), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (height + below + gap)
        sheet.paste(Image.fromarray(picture), (left + (width - picture.shape[1]) // 2, top))
        for line, text in enumerate(_wrapped(caption, width, lines, font)):
            pen.text((left, top + height + 2 + line * LINE), text, fill=INK, font=font)
    return np.asarray(sheet)


def _wrapped(text: str, width: float, lines: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """A text in lines no wider than that; what is left over ends in an ellipsis."""
    found: list[str] = []
    line = ""
    for character in " ".join(text.split()):
        if font.getlength(line + character) <= width:
            line += character
            continue
        if len(found) == lines - 1:
            line = line[:-1] + "…"
            break
        cut = line.rfind(" ") if " " in line else len(line)
        found.append(line[:cut])
        line = line[cut:].lstrip() + character
    return [*found, line]


class OverlaySheets:
    """Writes contact sheets of images with their instances, a file for every `COLUMNS` * `ROWS` images.

    Args:
        folder: gets sheet_000.jpg, sheet_001.jpg and so on; those of an earlier run are removed.
        class_names: names of the class ids.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder, self.class_names = folder, list(class_names)
        self.num_sheets = 0
        self._pictures: list[np.ndarray] = []
        self._captions: list[str] = []

    def __enter__(self) -> OverlaySheets:
        for path in self.folder.glob("sheet_*.jpg"):
            path.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None and self._pictures:
            self._write()

    def add(self, image: np.ndarray, instances: Instances, caption: str) -> None:
        """Draw an image, uint8 RGB [H, W, 3], with its instances; its sheet is written once it is full."""
        side = max(image.shape[:2])
        scale = min(max(side, MIN_CELL), MAX_CELL) / side
        self._pictures.append(draw_instances(image, instances, self.class_names, scale=scale))
        self._captions.append(caption)
        if len(self._pictures) == COLUMNS * ROWS:
            self._write()

    def _write(self) -> None:
        write_image(self.folder / f"sheet_{self.num_sheets:03d}.jpg", contact_sheet(self._pictures, self._captions))
        self.num_sheets += 1
        self._pictures.clear()
        self._captions.clear()
