"""Pictures of a training: the loss curve, and images with and without the concept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from diffugen.config.settings import GenerateConfig
from diffugen.diffusion.native import native_size_hw
from diffugen.diffusion.protocol import Pipeline
from diffugen.drawing import contact_sheet
from textual_inversion.config import ConceptConfig

_INK, _DOTS, _LINE = (40, 40, 40), (190, 205, 220), (20, 90, 160)
_MARGIN = 44


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Mean of the last `window` values (fewer at the start), float64 [n]."""
    total = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=np.float64)]))
    stop = np.arange(1, len(total))
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def draw_loss_curve(losses: Sequence[float], size_hw: tuple[int, int] = (320, 560)) -> Image.Image:
    """The loss of every step as dots, its running mean (a twentieth of the steps, 10 at least) as a line."""
    height, width = size_hw
    canvas = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    smooth = running_mean(losses, max(10, len(losses) // 20))
    low, high = float(np.min(losses)), float(np.quantile(losses, 0.99))
    high = high if high > low else low + 1.0

    def place(step: float, loss: float) -> tuple[float, float]:
        x = _MARGIN + (width - 2 * _MARGIN) * step / max(1, len(losses) - 1)
        return x, _MARGIN + (height - 2 * _MARGIN) * (1 - min(1.0, (loss - low) / (high - low)))

    for step, loss in enumerate(losses):
        x, y = place(step, loss)
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=_DOTS)
    points = [place(step, loss) for step, loss in enumerate(smooth)]
    if len(points) > 1:
        pen.line(points, fill=_LINE, width=2)
    pen.line([(_MARGIN, _MARGIN), (_MARGIN, height - _MARGIN), (width - _MARGIN, height - _MARGIN)], fill=_INK)
    for loss in (low, high):
        pen.text((4, place(0, loss)[1] - 7), f"{loss:.3f}", fill=_INK, font=font)
    pen.text((width - _MARGIN, height - _MARGIN + 6), f"{len(losses)} steps", fill=_INK, font=font, anchor="ra")
    pen.text((_MARGIN, 12), "denoising loss (line: running mean)", fill=_INK, font=font)
    return canvas


NUM_SAMPLES = 3
"""Images with the concept on the sheet, and as many without: enough to see whether it draws the object."""


def sample_prompts(config: ConceptConfig, word: str) -> list[str]:
    """What `NUM_SAMPLES` images are generated from: the concept's captions with a word in them."""
    return [_template(config, index).format(word) for index in range(NUM_SAMPLES)]


def generate_samples(pipe: Pipeline, prompts: Sequence[str], settings: GenerateConfig, seed: int) -> list[Image.Image]:
    """One image of the model's own size per prompt; the same noise for any prompts."""
    height, width = native_size_hw(pipe)
    images = []
    for index, prompt in enumerate(prompts):
        result = pipe(
            prompt,
            height=height,
            width=width,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=torch.Generator().manual_seed(seed + index),
        )
        images.append(result.images[0])
    return images


def _template(config: ConceptConfig, index: int) -> str:
    return config.templates[index % len(config.templates)]


def side_by_side(config: ConceptConfig, without: Sequence[Image.Image], with_: Sequence[Image.Image]) -> Image.Image:
    """Two rows of images, the initialiser's and the concept's, a column per template and seed."""
    rows = ((config.start_word, without), (config.placeholder_token, with_))
    captions = [_template(config, column).format(word) for word, images in rows for column in range(len(images))]
    pictures = [np.asarray(image) for _, images in rows for image in images]
    return Image.fromarray(contact_sheet(pictures, captions, columns=len(with_)))
