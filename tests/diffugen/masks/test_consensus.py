"""Consensus: one mask per object that attention and the detector both see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffugen.instances import Instances
from diffugen.masks.consensus import consensus
from diffugen.masks.outline.base import Outline, OutlinePrompt
from diffugen.masks.outline.classic import GrabCutOutliner

SIZE_HW = (96, 128)
GRABCUT = GrabCutOutliner()


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def picture(*objects: np.ndarray) -> np.ndarray:
    """Red objects on a green ground, with a little noise."""
    image = np.where(np.any(objects, axis=0)[..., None], (200, 40, 40), (40, 160, 60))
    return np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def agreed_cut(image: np.ndarray, views: np.ndarray) -> np.ndarray:
    """The mask of several views: their cut, else their majority."""
    (outline,) = GrabCutOutliner().outline(image, [OutlinePrompt(views)])
    return outline.mask


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


OBJECT = rectangle(30, 40, 36, 48)
ATTENDED, DETECTED = rectangle(26, 32, 40, 54), rectangle(34, 44, 40, 52)  # too large on opposite sides


def test_a_cut_of_two_masks_is_better_than_both() -> None:
    cut = agreed_cut(picture(OBJECT), np.stack([ATTENDED, DETECTED]))
    assert cut.dtype == bool and iou(cut, OBJECT) > 0.97
    assert max(iou(ATTENDED, OBJECT), iou(DETECTED, OBJECT)) < 0.8


def test_masks_with_nothing_in_common_are_left_to_the_majority() -> None:
    apart = np.stack([rectangle(5, 5, 20, 20), rectangle(60, 80, 20, 20), rectangle(60, 80, 20, 20)])
    assert (agreed_cut(picture(OBJECT), apart) == apart[1]).all()


def test_only_what_attention_and_the_detector_both_see_has_a_label() -> None:
    elsewhere = rectangle(4, 100, 20, 20)
    attention = Instances.from_masks(np.stack([ATTENDED, elsewhere]), [1, 0], [0.8, 0.7])
    detector = Instances.from_masks(np.stack([elsewhere, DETECTED]), [1, 1], [0.9, 0.6])
    found = consensus(picture(OBJECT), {"attention": attention, "detector": detector}, GRABCUT)
    assert found.class_ids.tolist() == [1] and iou(found.masks[0], OBJECT) > 0.97
    expected = np.mean([iou(found.masks[0], mask) for mask in (ATTENDED, DETECTED)])
    np.testing.assert_allclose(found.scores, [expected], atol=1e-6)
    nothing = consensus(picture(OBJECT), {"attention": attention.subset([1]), "detector": detector}, GRABCUT)
    assert len(nothing) == 0 and nothing.size_hw == SIZE_HW


def test_a_further_labeler_has_its_say() -> None:
    """Two of three hold the right half: where colours cannot tell, their word decides."""
    grey = np.full((*SIZE_HW, 3), 128, np.uint8)
    narrow, wide = rectangle(30, 40, 36, 24), rectangle(30, 40, 36, 48)
    labels = {"attention": narrow, "detector": wide, "flipped": wide}
    found = consensus(grey, {name: Instances.from_masks(mask[None], [0]) for name, mask in labels.items()}, GRABCUT)
    assert iou(found.masks[0], wide) > 0.9


def test_objects_share_no_pixel() -> None:
    left, right = rectangle(30, 20, 36, 40), rectangle(30, 60, 36, 40)
    image = picture(left, right)  # nothing in the image parts them
    attention = Instances.from_masks(np.stack([rectangle(30, 20, 36, 46), right]), [0, 0])
    detector = Instances.from_masks(np.stack([left, rectangle(30, 56, 36, 44)]), [0, 0])
    found = consensus(image, {"attention": attention, "detector": detector}, GRABCUT)
    assert len(found) == 2 and not (found.masks[0] & found.masks[1]).any()
    assert iou(found.masks[0], left) > 0.85 and iou(found.masks[1], right) > 0.85


def test_large_images_are_cut_at_a_smaller_size() -> None:
    scale = 5
    image = picture(OBJECT).repeat(scale, axis=0).repeat(scale, axis=1)
    views = [mask.repeat(scale, axis=0).repeat(scale, axis=1)[None] for mask in (ATTENDED, DETECTED, OBJECT)]
    attention, detector = (Instances.from_masks(view, [0]) for view in views[:2])
    found = consensus(image, {"attention": attention, "detector": detector}, GRABCUT)
    assert found.size_hw == image.shape[:2] and iou(found.masks[0], views[2][0]) > 0.95


def test_large_images_keep_the_fine_edges_of_a_vote() -> None:
    """Where colours do not tell, the majority stands as it is, not as it looks shrunk and enlarged again."""
    grey = np.full((400, 500, 3), 128, np.uint8)
    comb = np.zeros(grey.shape[:2], bool)
    comb[100:300, 100:400] = True
    comb[100:200, 100:400:4] = False  # teeth of three pixels
    assert (agreed_cut(grey, np.stack([comb, comb, comb])) == comb).all()


class Shrugging:
    """An outliner that gives every object the whole image, the second one with more certainty."""

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        levels = np.linspace(0.7, 0.8, len(prompts)).astype(np.float32)
        return [Outline(np.full(image.shape[:2], level), float(level)) for level in levels]


def test_the_likelier_outline_has_the_pixel_and_its_confidence_is_the_score() -> None:
    masks = np.stack([rectangle(30, 20, 36, 40), rectangle(30, 60, 36, 40)])
    seen = Instances.from_masks(masks, [0, 0], [0.9, 0.9])
    found = consensus(picture(*masks), {"attention": seen, "detector": seen}, Shrugging())
    assert len(found) == 1 and found.masks.all()
    np.testing.assert_allclose(found.scores, [0.8], atol=1e-6)
