"""Image files in and out, and drawing on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffugen.errors import UserError
from diffugen.images import draw_instances, index_map, list_images, read_image, write_png
from diffugen.instances import Instances

SIZE_HW = (40, 64)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


@pytest.fixture
def instances() -> Instances:
    masks = np.zeros((2, *SIZE_HW), bool)
    masks[0, 5:25, 10:40] = True
    masks[1, 15:35, 30:60] = True
    return Instances.from_masks(masks, [0, 1], [0.4, 0.9])


def test_png_is_exact(tmp_path: Path, photo: np.ndarray) -> None:
    write_png(tmp_path / "deep" / "a.png", photo)
    assert (read_image(tmp_path / "deep" / "a.png") == photo).all()
    numbers = np.arange(40 * 64, dtype=np.uint16).reshape(SIZE_HW) * 20
    write_png(tmp_path / "b.png", numbers)
    with Image.open(tmp_path / "b.png") as image:
        assert (np.asarray(image) == numbers).all()


def test_every_kind_of_image_is_read_as_rgb(tmp_path: Path, photo: np.ndarray) -> None:
    for mode in ("L", "P", "RGBA", "LA", "CMYK"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.fromarray(photo).convert(mode).save(path)
        assert read_image(path).shape == (*SIZE_HW, 3)


def test_a_turned_photo_is_turned_back(tmp_path: Path, photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png") == np.rot90(photo, k=-1)).all()


def test_broken_images_are_named(tmp_path: Path, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.jpg", "text.png", "empty.png"):
        with pytest.raises(UserError, match=f"{name} cannot be read .*; replace or remove it"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match="gone.png does not exist"):
        read_image(tmp_path / "gone.png")


def test_folders_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "c.webp"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.webp"]


def test_folders_without_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "gone")


def test_drawing_leaves_the_image_alone(photo: np.ndarray, instances: Instances) -> None:
    before = photo.copy()
    drawn = draw_instances(photo, instances, ["car", "tent"])
    assert (photo == before).all()
    assert drawn.shape == photo.shape and drawn.dtype == np.uint8
    assert (drawn[instances.masks[1]] != photo[instances.masks[1]]).any(axis=-1).mean() > 0.9
    assert (draw_instances(photo, Instances.empty(SIZE_HW), []) == photo).all()


def test_index_map_prefers_the_higher_score(instances: Instances) -> None:
    numbers = index_map(instances)
    assert numbers.dtype == np.uint16
    assert numbers[10, 15] == 1
    assert numbers[20, 35] == 2  # both are here
    assert numbers[0, 0] == 0
