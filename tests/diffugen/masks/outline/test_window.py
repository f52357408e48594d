"""Windows around objects: what the network sees, and back at the image's size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from diffugen.masks.outline.base import OutlinePrompt, heat_channels
from diffugen.masks.outline.window import Window, network_input


def disc(size_hw: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    return cv2.circle(np.zeros(size_hw, np.uint8), centre, radius, 1, -1).astype(bool)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("size_hw", [(64, 64), (128, 200), (600, 400)])
@pytest.mark.parametrize("where", [(0.5, 0.5), (0.05, 0.9)])
def test_what_is_cropped_comes_back_in_place(size_hw: tuple[int, int], where: tuple[float, float]) -> None:
    height, width = size_hw
    mask = disc(size_hw, (round(width * where[0]), round(height * where[1])), min(size_hw) // 5)
    window = Window.around(mask, size_hw)
    back = window.paste(window.crop(mask.astype(np.float32), 112))
    assert back.shape == size_hw and iou(back > 0.5, mask) > 0.96


def test_objects_of_all_sizes_look_alike() -> None:
    """A disc ten times as large, in an image ten times as large, fills the window the same."""
    small, large = disc((100, 100), (50, 50), 20), disc((1000, 1000), (504, 504), 205)
    views = [Window.around(mask, mask.shape).crop(mask.astype(np.float32), 112) for mask in (small, large)]
    assert iou(views[0] > 0.5, views[1] > 0.5) > 0.93


def test_a_coarse_map_is_cropped_where_the_image_is() -> None:
    mask = np.zeros((128, 128), bool)
    mask[32:64, 64:96] = True
    coarse = mask[::8, ::8].astype(np.float32)
    window = Window.around(mask, mask.shape)
    assert iou(window.crop(coarse, 112) > 0.5, window.crop(mask.astype(np.float32), 112) > 0.5) > 0.9
    same = Window.around(coarse > 0, mask.shape)
    np.testing.assert_allclose([same.left, same.top, same.side], [window.left, window.top, window.side])


def test_a_window_is_inside_the_image_where_it_fits() -> None:
    corner = np.zeros((100, 100), bool)
    corner[:10, 90:] = True
    window = Window.around(corner, (100, 100))
    assert (window.left + window.side, window.top) == (100, 0)
    assert Window.around(np.zeros((40, 60), bool), (40, 60)) == Window(0, -10, 60, (40, 60))


def test_the_network_sees_image_masks_and_heat_in_the_unit_interval() -> None:
    image = np.full((64, 64, 3), (255, 0, 51), np.uint8)
    mask = disc((64, 64), (30, 30), 12)
    heat = np.zeros((3, 8, 8), np.float32)
    heat[1, 2:6, 2:6] = 1
    prompt = OutlinePrompt(np.stack([mask, mask & (np.arange(64) < 30)]), ~mask, heat)
    planes = network_input(image, prompt, Window.around(mask, (64, 64)), 112)
    assert planes.shape == (8, 112, 112) and planes.dtype == np.float32
    assert planes.min() >= 0 and planes.max() <= 1
    np.testing.assert_allclose(planes[:3].mean(axis=(1, 2)), [1, 0, 0.2], atol=1e-6)
    assert {0.0, 0.5, 1.0} <= set(np.unique(planes[3]).tolist())
    assert planes[4][planes[3] == 0].mean() > 0.9
    assert planes[6].max() == 1 and planes[5].max() == planes[7].max() == 0
    bare = network_input(image, OutlinePrompt(mask[None]), Window.around(mask, (64, 64)), 112)
    assert not bare[4:].any() and bare[3].max() == 1


def test_heat_has_no_units() -> None:
    heats = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    spreads = heats[:, ::2, ::2]
    channels = heat_channels(heats, spreads)
    assert channels.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(channels[:, 0].max(axis=(1, 2)), 1)
    np.testing.assert_allclose(channels[:, 1].sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(channels, heat_channels(heats * 1e-3, spreads * 1e-3), atol=1e-5)
    assert not heat_channels(np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32)).any()


def test_ties_between_views_are_the_firsts_to_decide() -> None:
    left, right = np.zeros((2, 4, 4), bool)
    left[:, :2], right[:, 1:] = True, True
    assert (OutlinePrompt(np.stack([left, right])).majority == left).all()
    assert (OutlinePrompt(np.stack([left, right, right])).majority == right).all()
