"""Aligned arrays of labelled objects."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from diffugen.instances import Instances, box_of, decode_rle, encode_rle, polygons_of

SIZE_HW = (20, 31)


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def three() -> Instances:
    masks = np.stack([rectangle(2, 3, 9, 12), rectangle(0, 0, 20, 31), rectangle(19, 30, 20, 31)])
    return Instances.from_masks(masks, [1, 0, 2], [0.9, 0.5, 0.25])


def test_boxes_follow_from_masks_with_exclusive_far_edges(three: Instances) -> None:
    assert three.xyxy.tolist() == [[3, 2, 12, 9], [0, 0, 31, 20], [30, 19, 31, 20]]
    assert three.xyxy.dtype == np.float32
    assert three.class_ids.dtype == np.int64
    assert three.size_hw == SIZE_HW
    assert box_of(np.zeros(SIZE_HW, bool)) == (0, 0, 0, 0)


def test_scores_default_to_one() -> None:
    assert Instances.from_masks(rectangle(1, 1, 3, 3)[None], [0]).scores.tolist() == [1.0]


def test_empty_keeps_the_size() -> None:
    empty = Instances.empty(SIZE_HW)
    assert len(empty) == 0
    assert empty.size_hw == SIZE_HW
    assert empty.polygons == []
    assert Instances.from_json(json.loads(json.dumps(empty.to_json()))).size_hw == SIZE_HW


@pytest.mark.parametrize("index", [[2, 0], np.array([True, False, True])])
def test_subset_chooses_by_index_or_mask(three: Instances, index: object) -> None:
    chosen = three.subset(index)
    assert sorted(chosen.class_ids.tolist()) == [1, 2]
    for position, class_id in enumerate(chosen.class_ids):
        original = three.class_ids.tolist().index(class_id)
        assert (chosen.masks[position] == three.masks[original]).all()
        assert chosen.scores[position] == three.scores[original]
        assert (chosen.xyxy[position] == three.xyxy[original]).all()


def test_subset_of_nothing(three: Instances) -> None:
    assert len(three.subset([])) == 0
    assert len(three.subset(three.scores > 2)) == 0
    assert three.subset([]).size_hw == SIZE_HW


def test_concatenate(three: Instances) -> None:
    joined = Instances.concatenate([Instances.empty(SIZE_HW), three, three.subset([1])])
    assert joined.class_ids.tolist() == [1, 0, 2, 0]
    assert (joined.masks[3] == three.masks[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.zeros((1, *SIZE_HW), np.uint8)}, "masks must be bool"),
        ({"masks": np.zeros(SIZE_HW, bool)}, "masks must be bool"),
        ({"xyxy": np.zeros((2, 4), np.float32)}, r"xyxy must have shape \(1, 4\)"),
        ({"class_ids": np.zeros((1, 1), np.int64)}, r"class_ids must have shape \(1,\)"),
        ({"scores": np.zeros(0, np.float32)}, r"scores must have shape \(1,\)"),
        ({"scores": np.array([1.5], np.float32)}, r"scores must lie in \[0, 1\]"),
        ({"scores": np.array([np.nan], np.float32)}, r"scores must lie in \[0, 1\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    good = Instances.from_masks(rectangle(1, 1, 3, 3)[None], [0])
    fields = {name: getattr(good, name) for name in ("masks", "xyxy", "class_ids", "scores")}
    with pytest.raises(ValueError, match=message):
        Instances(**(fields | change))


def test_json_is_exact(three: Instances) -> None:
    holes = rectangle(2, 2, 15, 25) & ~rectangle(5, 5, 8, 8) | rectangle(17, 28, 19, 30)
    masks = np.concatenate([three.masks, holes[None], rectangle(0, 0, 0, 0)[None]])
    before = Instances.from_masks(masks, [1, 0, 2, 3, 4], [0.9, 0.5, 0.25, 1, 0])
    after = Instances.from_json(json.loads(json.dumps(before.to_json())))
    assert (after.masks == before.masks).all()
    assert (after.xyxy == before.xyxy).all()
    assert (after.class_ids == before.class_ids).all()
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st_numpy.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 17))))
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    encoded = json.loads(json.dumps(encode_rle(mask)))
    assert encoded["size"] == list(mask.shape)
    assert (decode_rle(encoded) == mask).all()


def test_polygons_are_outer_contours_as_x_y() -> None:
    mask = rectangle(2, 3, 9, 12) & ~rectangle(4, 5, 6, 7) | rectangle(12, 20, 18, 29)
    polygons = polygons_of(mask)
    assert len(polygons) == 2  # two parts; the hole has no contour of its own
    corners = {tuple(point) for polygon in polygons for point in polygon.tolist()}
    assert {(3, 2), (11, 8), (20, 12), (28, 17)} <= corners
    assert polygons[0].dtype == np.float32


def test_polygons_leave_out_what_has_no_area() -> None:
    assert polygons_of(rectangle(4, 4, 5, 5)) == []
