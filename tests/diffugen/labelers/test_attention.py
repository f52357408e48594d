"""Attention's labels: instances of every phrase, absent ones as an empty result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.config.settings import AttentionLabelConfig
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.prompts.prompt import ObjectPhrase, Prompt

SIZE_HW = (96, 160)
CLASSES = ("car", "tent")


def heat_of(*boxes: tuple[int, int, int, int], level: float = 0.3) -> np.ndarray:
    """A heatmap [12, 20] that is hot in the boxes (top, left, height, width)."""
    values = np.full((12, 20), 0.02, np.float32)
    for top, left, height, width in boxes:
        values[top : top + height, left : left + width] = level
    return values


def item_of(*entries: tuple[str, str, np.ndarray]) -> LabelInput:
    """An image whose prompt has objects (phrase, class) with these heatmaps."""
    prompt = Prompt(" ".join(text for text, _, _ in entries), tuple(ObjectPhrase(*entry[:2]) for entry in entries))
    heatmaps = tuple(Heatmap(text, heat) for text, _, heat in entries)
    attention = ImageAttention(heatmaps, rest=np.zeros((12, 20), np.float32))
    return LabelInput(np.zeros((*SIZE_HW, 3), np.uint8), prompt, attention)


@pytest.fixture(params=["refined", "paper"])
def make(request: pytest.FixtureRequest) -> Callable[..., Labeler]:
    return lambda **settings: AttentionLabeler(CLASSES, AttentionLabelConfig(method=request.param, **settings))


def test_two_phrases_give_two_instances_in_place(make: Callable[..., Labeler]) -> None:
    item = item_of(("red car", "car", heat_of((3, 2, 5, 6))), ("tent", "tent", heat_of((4, 12, 6, 5))))
    (found,) = make().label([item])
    assert found.size_hw == SIZE_HW
    assert sorted(found.class_ids) == [0, 1]
    for class_id, box in ((0, (2, 3, 8, 8)), (1, (12, 4, 17, 10))):
        predicted = found.xyxy[found.class_ids == class_id][0]
        assert np.abs(predicted - 8 * np.array(box)).max() <= 7  # less than a cell of the heatmap
    assert (found.scores > 0.6).all() and (np.diff(found.scores) <= 0).all()


def test_an_absent_object_is_an_empty_result(make: Callable[..., Labeler]) -> None:
    flat = item_of(("tent", "tent", np.full((12, 20), 0.02, np.float32)))
    noise = (0.03 + 0.005 * np.random.default_rng(0).random((12, 20))).astype(np.float32)
    faint = item_of(("tent", "tent", noise))
    nothing = LabelInput(np.zeros((*SIZE_HW, 3), np.uint8))
    in_flat, in_faint, in_nothing = make().label([flat, faint, nothing])
    assert len(in_flat) == len(in_nothing) == 0
    assert (in_faint.scores < 0.4).all()


def test_all_components_are_kept_the_likeliest_first(make: Callable[..., Labeler]) -> None:
    heat = np.maximum(heat_of((3, 2, 5, 6)), heat_of((4, 14, 5, 4), level=0.22))
    (found,) = make().label([item_of(("car", "car", heat))])
    assert len(found) == 2
    assert found.scores[0] > found.scores[1]
    assert found.masks[0][5 * 8, 4 * 8]


def test_a_phrase_said_twice_has_two_instances(make: Callable[..., Labeler]) -> None:
    both = heat_of((3, 2, 5, 6), (3, 12, 5, 6))
    (twice,) = make().label([item_of(("car", "car", both), ("car", "car", both))])
    (once,) = make().label([item_of(("car", "car", both))])
    assert len(twice) == len(once) == 2
    assert not (twice.masks[0] & twice.masks[1]).any()
    assert twice.scores.min() > once.scores.max()


def test_labels_of_different_phrases_share_no_pixel() -> None:
    """The tent stands in front of the car."""
    item = item_of(("car", "car", heat_of((3, 2, 6, 10))), ("tent", "tent", heat_of((5, 8, 3, 3), level=0.8)))
    (found,) = AttentionLabeler(CLASSES, AttentionLabelConfig()).label([item])
    assert set(found.class_ids) == {0, 1}
    assert found.masks.sum(0).max() == 1


def test_self_attention_completes_an_object() -> None:
    """Only one end of the car is hot, but all of its pixels look at each other."""
    car = heat_of((3, 2, 5, 10)) > 0.1
    kin = (car.ravel()[:, None] == car.ravel()[None]).astype(np.float32)
    affinity = (kin / kin.sum(axis=1, keepdims=True)).reshape(12, 20, 12, 20).astype(np.float16)
    item = item_of(("car", "car", heat_of((3, 2, 5, 3))))
    assert item.attention is not None
    whole = LabelInput(item.image, item.prompt, replace(item.attention, affinity=affinity))
    labeler = AttentionLabeler(CLASSES, AttentionLabelConfig())
    for part, right in ((item, 5), (whole, 12)):
        assert abs(labeler.label([part])[0].xyxy[0][2] - 8 * right) <= 7  # less than a cell of the heatmap


def test_large_images_are_labelled_like_small_ones() -> None:
    """Work is done at a reduced size; masks have the image's own, and edges stay in place."""
    item = item_of(("car", "car", heat_of((3, 2, 5, 6))))
    image = np.full((480, 800, 3), 90, np.uint8)
    image[3 * 40 : 8 * 40, 2 * 40 : 8 * 40] = (200, 30, 40)
    (found,) = AttentionLabeler(CLASSES, AttentionLabelConfig()).label([replace(item, image=image)])
    assert found.masks.shape == (1, 480, 800)
    assert np.abs(found.xyxy[0] - 40 * np.array((2, 3, 8, 8))).max() <= 5


def test_classes_that_the_dataset_lacks_are_left_out(make: Callable[..., Labeler]) -> None:
    item = item_of(("bus", "bus", heat_of((3, 2, 5, 6))), ("tent", "tent", heat_of((4, 12, 6, 5))))
    assert make().label([item])[0].class_ids.tolist() == [1]


def test_heatmaps_must_match_the_objects(make: Callable[..., Labeler]) -> None:
    item = item_of(("car", "car", heat_of((3, 2, 5, 6))))
    with pytest.raises(ValueError, match="0 heatmaps for the 1 objects"):
        make().label([LabelInput(item.image, item.prompt)])
