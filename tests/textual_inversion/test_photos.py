"""Photos of every kind, and the captions beside them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffugen.errors import UserError
from textual_inversion.photos import captions_of, digest, find_photos, load_photo, read_caption


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    photo = load_photo(tmp_path / "a.jpg")
    assert photo.shape == (40, 20, 3)
    assert photo[5, 10, 1] < 40 and photo[35, 10, 1] > 215  # the left half is on top now


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_over_white(tmp_path: Path, mode: str) -> None:
    rgba = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    rgba.paste((0, 0, 0, 255), (0, 0, 15, 20))
    rgba.convert(mode).save(tmp_path / "a.png", **({"transparency": 0} if mode == "P" else {}))
    photo = load_photo(tmp_path / "a.png")
    assert photo.shape == (20, 30, 3) and photo.dtype == np.uint8
    if mode != "P":
        assert (photo[:, :15] == 0).all() and (photo[:, 15:] == 255).all()


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((20, 30), 200, np.uint8), 200),
        (np.full((20, 30), 200 * 257, np.uint16), 200),
        (np.full((20, 30), True), 255),
    ],
    ids=["8 bits", "16 bits", "1 bit"],
)
def test_greyscale(tmp_path: Path, pixels: np.ndarray, expected: int) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = load_photo(tmp_path / "a.png")
    assert photo.shape == (20, 30, 3) and (photo == expected).all()


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_photo(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_unreadable_photos_are_named(tmp_path: Path, photo_folder: Path) -> None:
    whole = (photo_folder / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.webp").touch()
    for name in ("cut.png", "text.jpg", "empty.webp"):
        with pytest.raises(UserError, match=rf"concept\.photos: .*{name}"):
            load_photo(tmp_path / name)


def test_folders_without_photos_are_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden.png").touch()
    with pytest.raises(UserError, match=r"concept\.photos .* has no images"):
        find_photos(tmp_path)
    with pytest.raises(UserError, match=r"concept\.photos .* does not exist"):
        find_photos(tmp_path / "missing")


def test_other_files_are_left_out_aloud(photo_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photo_folder / "notes.txt").touch()
    assert [path.name for path in find_photos(photo_folder)] == ["0.png", "1.png", "2.png"]
    assert "notes.txt" in caplog.text


def test_digest_knows_names_and_bytes(photo_folder: Path) -> None:
    before = digest(find_photos(photo_folder))
    assert before == digest(find_photos(photo_folder))
    (photo_folder / "0.png").rename(photo_folder / "3.png")
    renamed = digest(find_photos(photo_folder))
    (photo_folder / "3.png").write_bytes(b"other")
    assert len({before, renamed, digest(find_photos(photo_folder))}) == 3


def test_captions_stand_next_to_their_photos(photo_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = digest(find_photos(photo_folder))
    (photo_folder / "0.txt").write_text("a red {} on a beach\n")
    (photo_folder / "2.txt").write_text("two <piano> at night")
    photos = find_photos(photo_folder)
    assert captions_of(photos, ["a {}", "the {}"], "<piano>") == [
        ("a red {} on a beach",),
        ("a {}", "the {}"),
        ("two {} at night",),
    ]
    assert not caplog.text  # a caption is no stray file
    assert digest(photos) != before


@pytest.mark.parametrize("text", ["a red piano", "a {} and a {}", "a {}\nby night", "", "a {colour} {}"])
def test_captions_without_one_object_are_named(photo_folder: Path, text: str) -> None:
    (photo_folder / "0.txt").write_text(text)
    with pytest.raises(UserError, match=r"caption '.*0\.txt' must be one line with exactly one {}"):
        read_caption(photo_folder / "0.png", "<piano>")


def test_captions_that_are_not_text_are_named(photo_folder: Path) -> None:
    (photo_folder / "0.txt").write_bytes(b"\xff\xfe\x00{}")
    with pytest.raises(UserError, match=r"0\.txt is UTF-16 text; save it as UTF-8"):
        read_caption(photo_folder / "0.png", "<piano>")
