"""Pasting the photos' objects onto generated images that do not show them.

X-Paste (Zhao et al. 2023) generates the objects. Here they come from photos, whose masks are the better ones.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bootstrap.run_folder import derive_seed
from diffugen.images import read_image
from diffugen.instances import Instances, box_of
from diffugen.sample import Sample

SCALES = (0.5, 1.25)
"""Of an object, as a multiple of its share of its photo's side."""
MIN_VISIBLE = 0.25
"""Share of a scene's object that must stay visible: less would be neither labelled nor background."""
MAX_PLACES = 20
"""Places that are tried for an object, before it is left out."""
MIN_PIXELS = 16
"""Of a pasted object; a smaller one would be blurred into its scene."""


@dataclass(frozen=True)
class Paste:
    """A training image to be made: one object of a photo upon a scene.

    Attributes:
        name: of the image.
        photo: labelled; its objects of `class_ids` are candidates.
        scene: labelled; what it shows stays labelled.
        class_ids: of the rare classes.
        seed: of the choice of the object, its size, its place and whether it is mirrored.
    """

    name: str
    photo: Sample
    scene: Sample
    class_ids: frozenset[int]
    seed: int

    def sample(self) -> Sample | None:
        """Make it; its pixels are no file yet. None where the object finds no place, see `paste`."""
        made = paste(self.scene, self.photo, self.class_ids, np.random.default_rng(self.seed))
        if made is None:
            return None
        image, found = made
        provenance = {"photo": self.photo.name, "scene": self.scene.name}
        return Sample(
            self.name,
            image,
            seed=self.seed,
            task="paste",
            split="train",
            encoded=found.to_json(),
            labeler=self.photo.labeler,
            provenance=provenance,
        )


def plan_pastes(images: Sequence[Sample], rare_ids: Collection[int], times: int, seed: int) -> list[Paste]:
    """What to paste among a round's training images; none where no photo has a rare object, or no image lacks one.

    Args:
        images: labelled.
        rare_ids: class ids of the rare classes.
        times: how often each photo's object is pasted.
        seed: each of the images has its own, which follows from this one and from its photo's name.
    """
    rare = frozenset(rare_ids)
    photos = [one for one in images if one.is_photo and rare & set(one.class_ids)]
    scenes = [one for one in images if one.task == "txt2img" and not rare & set(one.class_ids)]
    pastes = []
    for photo in photos if scenes else ():
        for number in range(times):
            own = derive_seed(seed, "paste", photo.image_path.name, number)
            # a seed of its own: the same random bits choose among the photo's objects
            scene = scenes[derive_seed(own, "scene") % len(scenes)]
            pastes.append(Paste(f"{photo.name}_pasted{number}", photo, scene, rare, own))
    return pastes


def paste(
    scene: Sample, photo: Sample, class_ids: Collection[int], rng: np.random.Generator
) -> tuple[np.ndarray, Instances] | None:
    """Paste one of a photo's objects into a scene, mirrored half of the time, at a random size and place.

    Sides of the object that its photo's border cuts off lie at the scene's border.

    Args:
        scene: its objects stay labelled where they stay visible.
        photo: has an object of one of `class_ids`, one of which is chosen.
        class_ids: see there.
        rng: decides.

    Returns:
        The pixels, uint8 [H, W, 3], and the objects that they show, the pasted one last. None where no place is found
        that leaves the scene's objects visible, or the object is too small to be seen.
    """
    image, below, objects = scene.pixels(), scene.instances, photo.instances
    chosen = int(rng.choice(np.flatnonzero(np.isin(objects.class_ids, list(class_ids)))))
    pixels, mask = _at_scale_of(image, _pixels_of(photo), objects.masks[chosen])
    if rng.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    for _ in range(MAX_PLACES if mask.any() else 0):
        move = _move(mask, image.shape[:2], rng)
        covered = _moved(mask, move, image.shape[:2], cv2.INTER_NEAREST) > 0
        visible = below.masks & ~covered
        if covered.sum() >= MIN_PIXELS and (visible.sum((1, 2)) >= MIN_VISIBLE * below.masks.sum((1, 2))).all():
            drawn = _blended(image, _moved(pixels, move, image.shape[:2], cv2.INTER_LINEAR), covered)
            left = Instances.from_masks(visible, below.class_ids, below.scores)
            pasted = Instances.from_masks(covered[None], objects.class_ids[[chosen]], objects.scores[[chosen]])
            return drawn, Instances.concatenate([left, pasted])
    return None


def _pixels_of(photo: Sample) -> np.ndarray:
    return _read(photo.image) if isinstance(photo.image, Path) else photo.image


@functools.lru_cache(maxsize=1)
def _read(path: Path) -> np.ndarray:
    """A photo's pixels; its pastes follow each other, and a large one takes long to decode."""
    return read_image(path)


def _at_scale_of(scene: np.ndarray, pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A photo and a mask, uint8, as large as fit into the scene: averaged pixels where they are shrunk."""
    scale = min(side / own for side, own in zip(scene.shape[:2], mask.shape, strict=True))
    size = max(1, round(scale * mask.shape[1])), max(1, round(scale * mask.shape[0]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shares = cv2.resize(mask.astype(np.float32), size, interpolation=how)
    return cv2.resize(pixels, size, interpolation=how), (shares >= 0.5).astype(np.uint8)


def _move(mask: np.ndarray, size_hw: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A similarity [2, 3] that keeps a mask's box inside the scene, at the sides where the mask touches its own."""
    left, top, right, bottom = box_of(mask > 0)
    width, height = right - left, bottom - top
    largest = min(size_hw[1] / width, size_hw[0] / height)
    # what its photo cuts off at opposite sides must span the scene to lie at both borders
    spans = (left == 0 and right == mask.shape[1]) or (top == 0 and bottom == mask.shape[0])
    scale = largest if spans else min(rng.uniform(*SCALES), largest)
    x = _shift(size_hw[1] - scale * width, left == 0, right == mask.shape[1], rng)
    y = _shift(size_hw[0] - scale * height, top == 0, bottom == mask.shape[0], rng)
    return np.array([[scale, 0, x - scale * left], [0, scale, y - scale * top]], np.float32)


def _shift(room: float, at_start: bool, at_end: bool, rng: np.random.Generator) -> float:
    drawn = rng.uniform(0, room)  # drawn in any case, so that one side does not decide about the other
    return 0.0 if at_start else room if at_end else drawn


def _moved(pixels: np.ndarray, move: np.ndarray, size_hw: tuple[int, int], how: int) -> np.ndarray:
    # beyond a photo's border its last pixels go on, so that nothing black shines through a blurred edge
    beyond = cv2.BORDER_REPLICATE if pixels.ndim == 3 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(np.ascontiguousarray(pixels), move, size_hw[::-1], flags=how, borderMode=beyond)


def _blended(scene: np.ndarray, above: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Both uint8 [H, W, 3]. Half a pixel of blur: a hard edge would teach the detector to look for it. Where the object
    is a few pixels thin it keeps half of them."""
    alpha = cv2.GaussianBlur(covered.astype(np.float32), (3, 3), 0)
    alpha = np.maximum(alpha, 0.5 * covered)[..., None]
    return np.round(alpha * above + (1 - alpha) * scene).astype(np.uint8)
