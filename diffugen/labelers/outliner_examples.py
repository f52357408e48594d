"""Training examples of an outliner: a window of a labelled image, a prompt as one of its users makes it, the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from diffugen.errors import UserError
from diffugen.labelers.outliner_readings import Reading
from diffugen.masks.outline.base import OutlinePrompt, heat_channels, others_of
from diffugen.masks.outline.corruption import box_prompt, corrupted, views
from diffugen.masks.outline.network import WORKING_SIZE
from diffugen.masks.outline.window import Window, network_input

KINDS = {"attention": 0.6, "attention and masks": 0.1, "mask": 0.15, "masks": 0.1, "box": 0.05}
"""Prompt -> share of the examples."""

_MIN_PIXELS = 30
_TRIES = 100
_UNSEEN = 0.25  # share of attention's prompts that miss a part of the object, as words for something else do
_OTHERS_KNOWN = 0.7


@dataclass(frozen=True)
class Example:
    """One object to outline.

    Attributes:
        inputs: float32 [CHANNELS, size, size], see `network_input`.
        target: float32 [size, size], the share of each pixel that is the object's.
        exists: False where attention strayed to something that is not what was asked for: any outline of it is wrong.
    """

    inputs: np.ndarray
    target: np.ndarray
    exists: bool = True


def draw_example(
    paths: Sequence[Path], rng: np.random.Generator, *, kind: str | None = None, augment: bool = True
) -> Example:
    """A random example of random, or a given, kind of prompt."""
    for attempt in range(_TRIES):
        reading = Reading.load(paths[int(rng.integers(len(paths)))])
        chosen = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
        chosen = chosen if attempt < _TRIES // 2 else "mask"  # of few images attention may have found nothing
        drawn = _attention_prompt(reading, rng) if chosen == "attention" else _mask_prompt(reading, chosen, rng)
        if drawn is not None:
            break
    else:
        raise UserError(
            f"no object of {_TRIES} images has {_MIN_PIXELS} pixels; give more, or larger, objects as --data"
        )
    prompt, number = drawn
    window = Window.around(prompt.mask > 0, reading.image.shape[:2])
    if augment:
        window = window.jittered(rng)
    inputs = network_input(reading.image, prompt, window, WORKING_SIZE)
    truth = reading.truth[number] if number >= 0 else np.zeros(reading.image.shape[:2], bool)
    target = window.crop(truth.astype(np.float32), WORKING_SIZE).clip(0, 1)
    if augment:
        inputs[:3] = _recoloured(inputs[:3], rng)
        if rng.random() < 0.5:
            inputs, target = inputs[:, :, ::-1], target[:, ::-1]
    return Example(np.ascontiguousarray(inputs), np.ascontiguousarray(target), number >= 0)


def _attention_prompt(reading: Reading, rng: np.random.Generator) -> tuple[OutlinePrompt, int] | None:
    """A part that attention has found, as the attention labeler asks for its outline."""
    if not len(reading.parts):
        return None
    index = int(rng.integers(len(reading.parts)))
    others = others_of(reading.parts)[index]
    heat = heat_channels(reading.heats, reading.spreads)[reading.part_phrases[index]]
    part, number = reading.parts[index], int(reading.part_truths[index])
    if number >= 0 and rng.random() < _UNSEEN:
        part, heat = _partly_unseen(part, heat, reading.truth[number], rng)
    return OutlinePrompt(part[None], others, heat), number


def _partly_unseen(
    part: np.ndarray, heat: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A part and its heat [3, h, w] as if the word did not mean one end of the object, which no other word claims."""
    angle, (height, width) = rng.uniform(0, 2 * np.pi), mask.shape
    along = np.cos(angle) * np.arange(width)[None] + np.sin(angle) * np.arange(height)[:, None]
    unseen = along > np.quantile(along[mask], rng.uniform(0.5, 0.85))
    rest = part & ~unseen
    if rest.sum() < 0.3 * part.sum():
        return part, heat
    fade = 1 - rng.uniform(0.4, 1) * cv2.GaussianBlur(unseen.astype(np.float32), (0, 0), 0.15 * np.sqrt(mask.sum()))
    fade = cv2.resize(fade, heat.shape[:0:-1], interpolation=cv2.INTER_AREA)
    faded = heat * np.stack([fade, np.ones_like(fade), fade])
    return rest, faded / np.maximum(faded.max(axis=(1, 2), keepdims=True), 1e-6) * heat.max(axis=(1, 2), keepdims=True)


def _mask_prompt(reading: Reading, kind: str, rng: np.random.Generator) -> tuple[OutlinePrompt, int] | None:
    """One or several labelers' masks, or a box."""
    large = [number for number, mask in enumerate(reading.truth) if mask.sum() >= _MIN_PIXELS]
    if not large:
        return None
    number = large[int(rng.integers(len(large)))]
    mask = reading.truth[number]
    if kind == "box":
        seen = box_prompt(mask, rng)[None]
    elif kind == "mask":
        seen = corrupted(mask, rng)[None]
    else:
        seen = views(mask, rng)
        if kind == "attention and masks":
            parts = reading.parts[reading.part_truths == number]
            if not len(parts):
                return None
            seen = np.concatenate([seen[:2], parts[:1]])
    others = None
    if rng.random() < _OTHERS_KNOWN:
        neighbours = [corrupted(reading.truth[other], rng) for other in large if other != number]
        others = np.any(neighbours, axis=0) if neighbours else np.zeros(mask.shape, bool)
    return OutlinePrompt(seen, others), number


def _recoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light, colours, noise and sharpness: float32 [3, h, w] in [0, 1]."""
    image = image * rng.uniform(0.75, 1.25, (3, 1, 1)) + rng.uniform(-0.08, 0.08)
    if rng.random() < 0.15:
        image = image[rng.permutation(3)]
    if rng.random() < 0.25:
        image = np.stack([cv2.GaussianBlur(plane, (0, 0), float(rng.uniform(0.4, 1.2))) for plane in image])
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(0, 0.04), image.shape)
    return image.clip(0, 1).astype(np.float32)
