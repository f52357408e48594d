"""Heat follows self-attention, phrases share the pixels, masks end at the image's edges."""

from __future__ import annotations

import numpy as np

from diffugen.masks.refinement import boundaries, compete, instance_parts, propagate, resolve_overlaps, split_part

SIZE_HW = (96, 128)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_heat_spreads_to_kin_and_keeps_its_units() -> None:
    """Two regions that look at themselves only: heat at one end of a region reaches all of it."""
    region = np.zeros((6, 8), bool)
    region[1:4, 2:7] = True
    kin = (region.ravel()[:, None] == region.ravel()[None]).astype(np.float32)
    affinity = (kin / kin.sum(axis=1, keepdims=True)).reshape(6, 8, 6, 8).astype(np.float16)
    heats = np.full((2, 6, 8), 0.02, np.float32)
    heats[0, 2, 2] = 0.32
    spread = propagate(heats, affinity)
    assert spread.shape == (2, 6, 8) and spread.dtype == np.float32
    np.testing.assert_allclose(spread[0][region], 0.04, rtol=1e-3)
    np.testing.assert_allclose(spread[0][~region], 0.02, rtol=1e-3)
    np.testing.assert_allclose(spread[1], 0.02, rtol=1e-3)


def test_sharpening_keeps_heat_from_crossing_a_faint_likeness() -> None:
    """Pixels of the other region are a third as like: squared, they get a ninth of the weight."""
    left = np.zeros((4, 6), bool)
    left[:, :3] = True
    like = np.where(left.ravel()[:, None] == left.ravel()[None], 3.0, 1.0)
    affinity = (like / like.sum(axis=1, keepdims=True)).reshape(4, 6, 4, 6).astype(np.float32)
    spread = propagate(np.where(left, 1.0, 0.0).astype(np.float32)[None], affinity)[0]
    np.testing.assert_allclose(spread[left], 0.9, rtol=1e-4)
    np.testing.assert_allclose(spread[~left], 0.1, rtol=1e-4)


def test_heat_comes_to_the_resolution_of_self_attention() -> None:
    affinity = np.full((3, 4, 3, 4), 1 / 12, np.float16)
    heats = np.random.default_rng(0).random((2, 6, 8), np.float32)
    spread = propagate(heats, affinity)
    assert spread.shape == (2, 3, 4)
    np.testing.assert_allclose(spread.mean(axis=(1, 2)), heats.mean(axis=(1, 2)), rtol=1e-3)


def test_contested_pixels_go_to_the_phrase_that_they_matter_to() -> None:
    left, right = rectangle(20, 20, 40, 50), rectangle(20, 50, 40, 60)
    strong = np.where(left, 0.5, 0.1).astype(np.float32)
    weak = np.where(right, 0.04, 0.001).astype(np.float32)
    weak[:, 50:70] *= 2  # the overlap is where the weak phrase is at its strongest
    won_left, won_right = compete([strong, weak], [left, right])
    assert not (won_left & won_right).any()
    assert ((won_left | won_right) == (left | right)).all()
    assert (won_right == right).all()
    assert [mask.any() for mask in compete([strong, weak], [left, np.zeros(SIZE_HW, bool)])] == [True, False]
    assert compete([], []) == []


def heat_in(*boxes: tuple[np.ndarray, float]) -> np.ndarray:
    heat = np.full(SIZE_HW, 0.01, np.float32)
    for mask, level in boxes:
        heat[mask] = level
    return heat


def test_parts_close_together_are_joined_up_to_the_number_of_objects() -> None:
    """Two wheels and a body, 6 pixels apart, are one car, or three sheep."""
    body, left, right = rectangle(20, 30, 20, 60), rectangle(46, 32, 12, 14), rectangle(46, 74, 12, 14)
    claim, heat = body | left | right, heat_in((body, 0.2), (left, 0.5), (right, 0.5))
    (car,) = instance_parts(claim, heat, 1, 0.005)
    assert (car == claim).all()
    assert sorted(part.sum() for part in instance_parts(claim, heat, 3, 0.005)) == [168, 168, 1200]


def test_distant_parts_stay_apart_and_cold_ones_are_dropped() -> None:
    hot, warm, cold = rectangle(10, 5, 30, 30), rectangle(50, 60, 30, 30), rectangle(5, 80, 12, 12)
    heat = heat_in((hot, 0.4), (warm, 0.3), (cold, 0.3))
    first, second = instance_parts(hot | warm | cold, heat, 1, 0.005)
    assert (first == hot).all() and (second == warm).all()
    assert instance_parts(np.zeros(SIZE_HW, bool), heat, 2, 0.005).shape == (0, *SIZE_HW)


def test_touching_objects_are_split_where_the_heat_dips() -> None:
    left, bridge, right = rectangle(20, 20, 40, 30), rectangle(30, 50, 20, 10), rectangle(20, 60, 40, 30)
    whole, heat = left | bridge | right, heat_in((left, 0.4), (bridge, 0.2), (right, 0.35))
    first, second = instance_parts(whole, heat, 2, 0.005)
    assert (first | second == whole).all() and not (first & second).any()
    assert first[left].all() and second[right].all()
    assert len(instance_parts(whole, heat, 1, 0.005)) == 1
    (same,) = split_part(whole, [heat_in((whole, 0.4))], 2)  # nothing tells them apart
    assert (same == whole).all()


def test_self_attention_shows_boundaries_and_separates_what_heat_joins() -> None:
    """Two halves of an even heat that look at themselves only."""
    halves = np.arange(12)[None].repeat(9, axis=0) // 6
    kin = (halves.ravel()[:, None] == halves.ravel()[None]) + 0.01
    edges = boundaries((kin / kin.sum(axis=1, keepdims=True)).reshape(9, 12, 9, 12).astype(np.float16))
    assert edges.shape == (9, 12) and edges.dtype == np.float32
    assert (edges[:, [5, 6]] > 1).all() and np.abs(np.delete(edges, [5, 6], axis=1)).max() < 1e-3
    left, right = rectangle(20, 20, 40, 44), rectangle(20, 64, 40, 44)
    heat, between = heat_in((left | right, 0.4)), heat_in((rectangle(0, 60, 96, 8), 2.0))
    assert len(instance_parts(left | right, heat, 2, 0.005)) == 1
    parts = instance_parts(left | right, heat, 2, 0.005, between)
    assert sorted(int((part & left).sum()) for part in parts) == [0, left.sum()]
    assert (parts.any(axis=0) == (left | right)).all()
    # where heat separates them, it decides
    parts = instance_parts(
        left | right, heat_in((left, 0.4), (right, 0.4), (rectangle(0, 30, 96, 8), 0.1)), 2, 0.005, between
    )
    assert sorted(int((part & left).sum()) for part in parts) != [0, left.sum()]


def test_a_pixel_that_two_cuts_want_goes_to_where_it_started_else_to_the_hotter() -> None:
    starts = np.array([rectangle(20, 20, 40, 30), rectangle(20, 60, 40, 30)])
    cuts = np.array([rectangle(20, 20, 40, 45), rectangle(20, 45, 40, 45)])  # both reach over the gap, into the other
    heats = np.array([heat_in((starts[0], 0.4), (rectangle(20, 50, 40, 10), 0.3)), heat_in((starts[1], 0.1))])
    first, second = resolve_overlaps(cuts, starts, heats)
    assert (first == rectangle(20, 20, 40, 40)).all()
    assert (second == rectangle(20, 60, 40, 30)).all()
    assert resolve_overlaps(np.zeros((0, *SIZE_HW), bool), starts[:0], heats[:0]).shape == (0, *SIZE_HW)
