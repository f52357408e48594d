"""Photos of every kind, their augmented views, and the draws that training sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffugen.config import ConfigError
from textual_inversion.concept_data import (
    ConceptDraws,
    LatentPool,
    augmented_views,
    digest,
    encode_views,
    find_photos,
    load_photo,
)
from textual_inversion.config import AugmentConfig


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
        (np.full((20, 30), 200 * 256 + 7, np.uint16), 200),
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
        with pytest.raises(ConfigError, match=rf"concept\.photos: .*{name}"):
            load_photo(tmp_path / name)


def test_folders_without_photos_are_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden.png").touch()
    with pytest.raises(ConfigError, match=r"concept\.photos .* has no photos"):
        find_photos(tmp_path)
    with pytest.raises(ConfigError, match=r"concept\.photos .* is not a folder"):
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


@pytest.mark.parametrize("size_hw", [(24, 32), (48, 40)])
def test_views_fill_the_size_and_repeat_with_their_seed(photo_folder: Path, size_hw: tuple[int, int]) -> None:
    photos = [load_photo(path) for path in find_photos(photo_folder)]
    config = AugmentConfig(views_per_photo=4)
    first, again, other = (list(augmented_views(photos, config, size_hw, seed)) for seed in (1, 1, 2))
    assert len(first) == 12 and {view.shape for view in first} == {(*size_hw, 3)}
    assert all(view.dtype == np.uint8 for view in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("border", ["reflect", "edge"])
def test_views_of_a_plain_photo_have_no_black_border(border: str) -> None:
    config = AugmentConfig.model_validate(
        {"border": border, "shift_fraction": 0.4, "scale_fraction": 0.5, "brightness": 0, "contrast": 0}
    )
    for view in augmented_views([np.full((30, 50, 3), 180, np.uint8)], config, (24, 32), seed=0):
        assert (view == 180).all()


def test_no_augmentation_leaves_the_photo(photo_folder: Path) -> None:
    settings = dict.fromkeys(("flip_probability", "scale_fraction", "shift_fraction", "brightness", "contrast"), 0)
    photo = load_photo(photo_folder / "2.png")  # has the wanted size already
    view = next(augmented_views([photo], AugmentConfig.model_validate(settings), (24, 32), seed=3))
    assert np.array_equal(view, photo)


def test_encoding_does_not_depend_on_the_batch_size(tiny_pipeline, photo_folder: Path) -> None:
    photos = [load_photo(path) for path in find_photos(photo_folder)]
    views = list(augmented_views(photos, AugmentConfig(views_per_photo=1), (24, 32), seed=0))
    whole, single = (encode_views(tiny_pipeline.vae, iter(views), batch_size=size) for size in (3, 2))
    factor = tiny_pipeline.vae_scale_factor
    assert whole.mean.shape == whole.std.shape == (3, 4, 24 // factor, 32 // factor)
    assert torch.allclose(whole.mean, single.mean, atol=1e-5) and torch.allclose(whole.std, single.std, atol=1e-5)
    assert not whole.mean.requires_grad


def test_draws_are_decided_by_seed_and_number() -> None:
    pool = LatentPool(torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 4, 3, 2), torch.full((5, 4, 3, 2), 0.1))
    draws = ConceptDraws(pool, ["a", "b"], batch_size=4, seed=7)
    stream = iter(draws)
    next(stream), next(stream)
    third = next(stream)
    resumed = next(iter(ConceptDraws(pool, ["a", "b"], batch_size=4, seed=7, first=2)))
    for name in ("latents", "noise", "timestep_fractions"):
        assert torch.equal(third[name], resumed[name])
    assert third["captions"] == resumed["captions"] and set(third["captions"]) <= {"a", "b"}
    assert not torch.equal(third["noise"], draws.draw(3)["noise"])
    assert not torch.equal(third["noise"], ConceptDraws(pool, ["a"], batch_size=4, seed=8).draw(2)["noise"])
    assert (third["latents"] - third["latents"].round()).abs().std() < 0.2  # near one of the pool's means


def test_timesteps_are_spread_evenly() -> None:
    pool = LatentPool(torch.zeros(1, 4, 3, 2), torch.ones(1, 4, 3, 2))
    draws = ConceptDraws(pool, ["a"], batch_size=4, seed=0)
    fractions = torch.stack([draws.draw(step)["timestep_fractions"] for step in range(200)])
    assert ((fractions * 4).floor() == torch.arange(4)).all()
    assert abs(fractions.mean().item() - 0.5) < 0.02 and fractions.max() < 1
