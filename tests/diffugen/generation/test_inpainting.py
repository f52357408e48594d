"""Inpainting one object: the region that is repainted, and the labels afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from diffugen.generation.inpainting import cut_instances, merge_labels, repaint_region
from diffugen.instances import Instances

SIZE_HW = (40, 64)


def boxes(
    *xyxy: tuple[int, int, int, int], class_ids: tuple[int, ...] = (), scores: tuple[float, ...] = ()
) -> Instances:
    masks = np.zeros((len(xyxy), *SIZE_HW), bool)
    for mask, (left, top, right, bottom) in zip(masks, xyxy, strict=True):
        mask[top:bottom, left:right] = True
    return Instances.from_masks(masks, class_ids or [0] * len(xyxy), scores or None)


def test_the_region_is_the_mask_grown_by_the_margin() -> None:
    region = repaint_region(boxes((20, 10, 40, 30)), 0, margin_fraction=4 / (40 * 64) ** 0.5)
    ys, xs = np.nonzero(region)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (16, 44, 6, 34)
    assert not region[6, 16]  # round corners
    assert (repaint_region(boxes((20, 10, 40, 30)), 0, 0.0) == boxes((20, 10, 40, 30)).masks[0]).all()


def test_the_margin_spares_other_objects_but_the_mask_itself_is_whole() -> None:
    instances = boxes((20, 10, 40, 30), (38, 12, 60, 28))  # they overlap by two columns
    region = repaint_region(instances, 0, margin_fraction=0.1)
    assert region[instances.masks[0]].all()
    assert not region[instances.masks[1] & ~instances.masks[0]].any()
    assert region[20, 18] and region[8, 30]


def test_untouched_labels_stay_and_the_new_object_is_cut_to_the_region() -> None:
    before = boxes((2, 2, 10, 10), (20, 10, 40, 30), class_ids=(0, 1), scores=(0.7, 0.9))
    region = repaint_region(before, 1, 0.05)
    attended = boxes((18, 8, 60, 36), class_ids=(2,), scores=(0.6,))
    labels, found = merge_labels(before, 1, region, attended)
    assert found
    assert labels.class_ids.tolist() == [0, 2]
    assert labels.scores.tolist() == pytest.approx([0.7, 0.6])
    assert (labels.masks[0] == before.masks[0]).all()
    assert (labels.masks[1] == (attended.masks[0] & region)).all()


def test_the_best_instance_inside_is_the_new_object() -> None:
    before = boxes((20, 10, 40, 30))
    region = before.masks[0]
    outside, small, large = (2, 2, 18, 30), (21, 11, 24, 14), (26, 12, 40, 30)
    labels, found = merge_labels(before, 0, region, boxes(outside, small, large, scores=(0.99, 0.8, 0.5)))
    assert found
    assert (labels.masks == boxes(large).masks).all()


def test_what_the_new_object_covers_is_no_longer_labelled() -> None:
    before = boxes((20, 10, 40, 30), (36, 10, 60, 30), (38, 12, 40, 14))
    labels, found = merge_labels(before, 0, before.masks[0], boxes((20, 10, 40, 30)))
    assert found
    assert len(labels) == 2  # the third lies under the new one
    assert labels.xyxy[0].tolist() == [40, 10, 60, 30]


@pytest.mark.parametrize("attended", [boxes(), boxes((2, 2, 10, 10)), boxes((20, 10, 23, 13))])
def test_a_new_object_that_is_not_there_is_not_labelled(attended: Instances) -> None:
    before = boxes((20, 10, 40, 30), (50, 10, 60, 30))
    labels, found = merge_labels(before, 0, before.masks[0], attended, min_area_fraction=0.01)
    assert not found
    assert (labels.masks == before.masks[1:]).all()


def test_small_labels_that_nothing_covers_stay() -> None:
    before = boxes((20, 10, 40, 30), (50, 10, 52, 12))
    labels, _ = merge_labels(before, 0, before.masks[0], boxes((20, 10, 40, 30)), min_area_fraction=0.05)
    assert len(labels) == 2


def test_sides_are_cut_to_multiples_of_eight() -> None:
    masks = np.zeros((2, 45, 70), bool)
    masks[0, 38:, 60:] = True
    masks[1, 41:] = True
    cut = cut_instances(Instances.from_masks(masks, [0, 1]))
    assert cut.size_hw == (40, 64)
    assert cut.masks.sum(axis=(1, 2)).tolist() == [8, 0]
    assert cut.xyxy[0].tolist() == [60, 38, 64, 40]
