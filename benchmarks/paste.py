"""Photos' cut-outs on generated scenes without the object: the copy-and-paste arm of `benchmarks/loop.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from diffugen.instances import Instances
from diffugen.sample import Sample

SCALES = (0.5, 1.25)
"""Of a cut-out, as a share of its size in its photo."""
MIN_VISIBLE = 0.25
"""Share of a covered object that stays visible, below which it is no longer labelled."""


def pasted_samples(photos: Sequence[Sample], scenes: Sequence[Sample], num_images: int, seed: int) -> Iterator[Sample]:
    """Paste a photo's objects into a scene, mirrored half of the time, at a random size and place.

    Args:
        photos: labelled photos that show the object.
        scenes: labelled images that do not; the objects they show stay labelled where they stay visible.
        num_images: how many to make.
        seed: of all that is random.
    """
    rng = np.random.default_rng(seed)
    for number in range(num_images):
        scene, photo = scenes[number % len(scenes)], photos[int(rng.integers(len(photos)))]
        image, found = paste(scene, photo, rng)
        yield replace(Sample.labelled(f"pasted_{number:05d}", image, found, "train"), labeler=photo.labeler)


def paste(scene: Sample, photo: Sample, rng: np.random.Generator) -> tuple[np.ndarray, Instances]:
    """The scene's pixels with the photo's objects upon them, and the labels of both."""
    image, pixels, objects = scene.pixels().copy(), photo.pixels(), photo.instances
    masks = objects.masks.astype(np.uint8)
    if rng.random() < 0.5:
        pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
    move = _move(np.asarray(masks.any(0)), image.shape[:2], rng)
    size = image.shape[1::-1]
    moved = cv2.warpAffine(np.ascontiguousarray(pixels), move, size, flags=cv2.INTER_LINEAR)
    cut = [cv2.warpAffine(np.ascontiguousarray(mask), move, size, flags=cv2.INTER_NEAREST) > 0 for mask in masks]
    covered = np.any(cut, axis=0)
    # half a pixel of blur: a hard edge would teach the detector to look for it
    alpha = cv2.GaussianBlur(covered.astype(np.float32), (3, 3), 0)[..., None]
    image = np.round(alpha * moved + (1 - alpha) * image).astype(np.uint8)
    below = scene.instances
    visible = below.masks & ~covered
    keep = visible.sum((1, 2)) >= MIN_VISIBLE * below.masks.sum((1, 2))
    pasted = Instances.from_masks(np.stack(cut), objects.class_ids, objects.scores)
    return image, Instances.concatenate(
        [Instances.from_masks(visible[keep], below.class_ids[keep], below.scores[keep]), pasted]
    )


def _move(mask: np.ndarray, size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A similarity [2, 3] that keeps a mask's box inside the image."""
    ys, xs = np.nonzero(mask)
    left, top, width, height = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
    scale = min(rng.uniform(*SCALES), size_hw[1] / width, size_hw[0] / height)
    x = rng.uniform(0, size_hw[1] - scale * width)
    y = rng.uniform(0, size_hw[0] - scale * height)
    return np.array([[scale, 0, x - scale * left], [0, scale, y - scale * top]], np.float32)
