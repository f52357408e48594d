"""Image files in and out, and drawing on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffugen.errors import UserError
from diffugen.images import index_map, is_blank, list_images, read_image, readable_images, write_png
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


def test_folders_are_listed_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "c.webp", "d.gif", "e.avif", "f.jp2", "g.tif"):
        (tmp_path / name).write_bytes(b"")
    listed = [path.name for path in list_images(tmp_path)]
    assert listed == ["a.jpeg", "b.PNG", "c.webp", "d.gif", "e.avif", "f.jp2", "g.tif"]
    assert not caplog.text


def test_what_is_not_read_is_counted_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("", "night", "day/early"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.png").write_bytes(b"")
    for name in ("1.txt", "2.txt", "3.txt", "4.txt", "NOTES"):
        (tmp_path / name).write_text("")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "linked.png").symlink_to("a.png")
    for _ in range(2):
        assert [path.name for path in list_images(tmp_path, hint="see the manual")] == ["a.png", "linked.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"image folder {tmp_path}: left out 4 .txt (1.txt, 2.txt, 3.txt, ...); 2 no regular file (gone.png, pipe.png); "
        "1 without suffix (NOTES); 2 sub-folders (day, night), see the manual"
    ]


def test_sub_folders_are_listed_when_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for folder in (photos, photos / "b", photos / "b" / "c", photos / ".hidden", elsewhere):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"")
    (photos / "b" / "round").symlink_to(photos)  # a loop
    (photos / "link").symlink_to(elsewhere)
    found = [str(path.relative_to(photos)) for path in list_images(photos, recursive=True)]
    assert found == ["a.png", "b/a.png", "b/c/a.png", "link/a.png"]
    assert not caplog.text


def test_captions_belong_to_their_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "a.txt", "b.txt"):
        (tmp_path / name).write_text("")
    list_images(tmp_path, what="concept.photos", captions=True)
    assert f"concept.photos {tmp_path}: left out 1 .txt (b.txt)" in caplog.text


def test_images_that_cannot_be_read_are_left_out_with_a_word(
    tmp_path: Path, photo: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "good.png", photo)
    paths = [tmp_path / f"{name}.png" for name in ("1", "2", "good", "3", "4")]
    [(path, pixels)] = readable_images(paths)
    assert path.name == "good.png" and (pixels == photo).all()
    assert "left out 4 of 5 images: image" in caplog.text and "3.png does not exist" in caplog.text
    assert "4.png" not in caplog.text and "(and 1 more)" in caplog.text
    with pytest.raises(UserError, match=r"1\.png does not exist"):
        list(readable_images(paths[:2]))


def test_folders_without_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no images; put \.jpg, \.png or other image files into it"):
        list_images(tmp_path)
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no images \(left out 1 \.heic \(a\.heic\).*\); put"):
        list_images(tmp_path)
    with pytest.raises(UserError, match=r"a\.heic is not a folder"):
        list_images(tmp_path / "a.heic")
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "gone")


def test_index_map_prefers_the_higher_score(instances: Instances) -> None:
    numbers = index_map(instances)
    assert numbers.dtype == np.uint16
    assert numbers[10, 15] == 1
    assert numbers[20, 35] == 2  # both are here
    assert numbers[0, 0] == 0


def test_an_image_of_one_colour_is_blank(photo: np.ndarray) -> None:
    flat = np.full((40, 60, 3), (0, 128, 255), np.uint8)
    noisy = flat.copy()
    noisy[::9, ::9, 1] += 1
    assert is_blank(flat) and is_blank(noisy) and is_blank(np.zeros_like(flat))
    noisy[10:14, 20:24] = 90
    assert not is_blank(noisy) and not is_blank(photo)
