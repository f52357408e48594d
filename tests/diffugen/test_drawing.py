"""Drawing: masks and names on images, heat, contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffugen.drawing import FONT_SIZE, LINE, MIN_CELL, OverlaySheets, contact_sheet, draw_instances, heat_overlay
from diffugen.images import read_image
from diffugen.instances import Instances

NAMES = ["grand-piano", "car"]


@pytest.fixture
def two_objects() -> Instances:
    masks = np.zeros((2, 48, 64), bool)
    masks[0, 20:40, 4:20] = masks[1, 10:30, 40:60] = True
    return Instances.from_masks(masks, [0, 1], [0.9, 0.5])


def test_instances_are_tinted_by_class_and_the_rest_is_untouched(two_objects: Instances) -> None:
    image = np.full((48, 64, 3), 100, np.uint8)
    drawn = draw_instances(image, two_objects)
    changed = (drawn != image).any(axis=2)
    np.testing.assert_array_equal(changed, two_objects.masks.any(axis=0))
    assert (drawn[30, 12] != drawn[20, 50]).any()
    assert (image == 100).all()
    np.testing.assert_array_equal(draw_instances(image, Instances.empty((48, 64))), image)


def test_names_stand_inside_the_picture_and_apart(two_objects: Instances) -> None:
    """Both objects at one corner: neither name is cut off, nor written over the other."""
    same = two_objects.masks[[0, 0]]
    instances = Instances.from_masks(same, [0, 1], [0.9, 0.5])
    image = np.full((48, 64, 3), 100, np.uint8)
    plain, named = (draw_instances(image, instances, names, scale=4.0) for names in (None, NAMES))
    rows = np.flatnonzero((plain != named).any(axis=(1, 2)))
    assert named.shape == (192, 256, 3)
    assert len(rows) == 2 * LINE and rows[-1] - rows[0] == 2 * LINE - 1


def test_heat_is_brightest_where_it_is_highest() -> None:
    values = np.zeros((6, 8), np.float32)
    values[4, 6] = 0.01
    drawn = heat_overlay(np.zeros((48, 64, 3), np.uint8), values).sum(axis=2)
    assert np.unravel_index(drawn.argmax(), drawn.shape) == pytest.approx((36, 52), abs=4)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_sheet_has_every_picture_and_its_caption(count: int) -> None:
    colours = [(40 * number + 10, 0, 200) for number in range(count)]
    pictures = [np.full((30, 300 - 10 * number, 3), colour, np.uint8) for number, colour in enumerate(colours)]
    sheet = contact_sheet(pictures, [f"number {number} " * 40 for number in range(count)], columns=3)
    for picture, colour in zip(pictures, colours, strict=True):
        inside = (sheet == colour).all(axis=2)
        assert inside.sum() == picture.shape[0] * picture.shape[1]
        bottom = np.flatnonzero(inside.any(axis=1))[-1]
        left = np.flatnonzero(inside.any(axis=0))[0]
        below = sheet[bottom + 2 : bottom + 2 + 2 * LINE, left : left + 200]
        assert (below < 100).any(axis=2).sum() > 100  # ink
    assert sheet.shape[0] == -(-count // 3) * (30 + 2 * LINE + 4 + 6) + 6


def test_overlays_of_small_images_are_enlarged_and_fill_sheets(tmp_path: Path, two_objects: Instances) -> None:
    image = np.full((48, 64, 3), 100, np.uint8)
    with OverlaySheets(tmp_path, NAMES) as sheets:
        for number in range(21):
            sheets.add(image, two_objects, f"{number}.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet_000.jpg", "sheet_001.jpg"]
    first, second = (read_image(tmp_path / f"sheet_{number:03d}.jpg") for number in range(2))
    assert first.shape[1] > 5 * MIN_CELL and MIN_CELL < second.shape[1] < 2 * MIN_CELL
    assert FONT_SIZE >= 12


def test_nothing_is_written_after_an_error(tmp_path: Path, two_objects: Instances) -> None:
    with pytest.raises(ZeroDivisionError), OverlaySheets(tmp_path / "sheets", NAMES) as sheets:
        sheets.add(np.zeros((48, 64, 3), np.uint8), two_objects, "a")
        raise ZeroDivisionError
    assert not (tmp_path / "sheets").exists()
