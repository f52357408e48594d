"""Masks end at the image's edges, thin parts included, and are left alone where colour cannot tell."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from diffugen.masks.graph_cut import grabcut
from diffugen.masks.outline.base import OutlinePrompt
from diffugen.masks.outline.classic import GrabCutOutliner

SIZE_HW = (80, 120)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def agreed_cut(image: np.ndarray, views: np.ndarray) -> np.ndarray:
    """The mask of several views: their cut, else their majority."""
    (outline,) = GrabCutOutliner().outline(image, [OutlinePrompt(views)])
    return outline.mask


def test_grabcut_moves_a_coarse_edge_to_the_images_own() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (80, 120, 3), dtype=np.uint8)
    truth = rectangle(25, 40, 35, 50)
    image[truth] = (200, 30, 40)
    coarse = np.roll(truth, (3, -4), axis=(0, 1))
    refined = grabcut(image, coarse)
    assert refined is not None
    assert iou(coarse, truth) < 0.8
    assert iou(refined, truth) > 0.95
    assert (refined == grabcut(image, coarse)).all()  # its random start is fixed


def test_grabcut_fills_holes() -> None:
    """A window in a house is part of the house."""
    image = np.full((80, 120, 3), 100, np.uint8)
    image[20:60, 30:90] = (200, 30, 40)
    image[25:31, 40:48] = 100
    found = grabcut(image, rectangle(20, 30, 40, 60))
    assert found is not None and found[25:31, 40:48].all()


def test_grabcut_leaves_alone_what_it_cannot_improve() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    for mask in (np.zeros((40, 60), bool), np.ones((40, 60), bool)):
        assert grabcut(image, mask) is None


def test_a_cut_needs_as_much_evidence_as_it_is_asked_for() -> None:
    """Two like textures: colour tells little."""
    rng = np.random.default_rng(0)
    image = rng.normal(120, 25, (80, 120, 3)).clip(0, 255).astype(np.uint8)
    truth = rectangle(25, 40, 35, 50)
    image[truth] = rng.normal(140, 25, (int(truth.sum()), 3)).clip(0, 255).astype(np.uint8)
    coarse = np.roll(truth, (3, -4), axis=(0, 1))
    assert grabcut(image, coarse) is not None and grabcut(image, coarse, min_evidence=9.0) is None


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_what_is_too_small_for_its_colours_to_tell_is_left_to_the_majority(seed: int) -> None:
    """There is nothing but texture: colours of eighty pixels differ from the rest by chance."""
    texture = np.random.default_rng(seed).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
    square = rectangle(30, 40, 9, 9)
    views = np.stack([square, np.roll(square, 1, axis=1), np.roll(square, 1, axis=0)])
    assert (agreed_cut(cv2.GaussianBlur(texture, (0, 0), 2), views) == (views.sum(axis=0) >= 2)).all()


def test_the_first_of_two_views_decides_where_colours_do_not() -> None:
    grey = np.full((*SIZE_HW, 3), 128, np.uint8)
    first, second = rectangle(20, 30, 30, 40), rectangle(20, 50, 30, 50)
    assert (agreed_cut(grey, np.stack([first, second])) == first).all()


def test_objects_at_the_border() -> None:
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    corner = rectangle(0, 0, 30, 40)
    image[corner] = (200, 40, 40)
    views = np.stack([rectangle(0, 0, 34, 44), rectangle(0, 0, 27, 38)])
    for found in (grabcut(image, views[0], enlargement=2), agreed_cut(image, views)):
        assert found.shape == SIZE_HW and found.dtype == bool and iou(found, corner) > 0.95
    assert agreed_cut(image, np.ones((2, *SIZE_HW), bool)).all()


GROUND = (110, 110, 115)
LEGS = rectangle(34, 34, 28, 2) | rectangle(34, 84, 28, 2)
TABLE = rectangle(20, 30, 14, 60) | LEGS
AROUND = cv2.dilate(TABLE.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)


def picture(colour: tuple[int, int, int], noise: float) -> np.ndarray:
    """A table on two thin legs."""
    rng = np.random.default_rng(0)
    image = np.where(TABLE[..., None], colour, GROUND) + rng.normal(0, noise, (*SIZE_HW, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def test_enlarged_pixels_keep_thin_parts() -> None:
    image = picture((135, 90, 90), noise=12)
    plain, enlarged = (grabcut(image, AROUND, enlargement=factor) for factor in (1, 3))
    assert not (plain & LEGS)[40:].any()
    assert (enlarged & LEGS)[40:].sum() > 0.9 * LEGS[40:].sum()
    assert iou(enlarged, TABLE) > 0.95


@pytest.mark.parametrize(("colour", "noise", "told"), [((150, 80, 80), 8, True), ((135, 90, 90), 12, False)])
def test_views_are_cut_only_where_colour_tells_object_from_ground(
    colour: tuple[int, int, int], noise: float, told: bool
) -> None:
    views = np.stack([AROUND, np.roll(AROUND, 1, axis=1), np.roll(AROUND, 1, axis=0)])
    found = agreed_cut(picture(colour, noise), views)
    if told:
        assert iou(found, TABLE) > 0.95
    else:
        assert (found == (views.mean(axis=0) >= 0.5)).all()
