"""Augmented views of the photos, their latents, and the draws that training sees."""

from pathlib import Path

import numpy as np
import pytest
import torch

from textual_inversion import data
from textual_inversion.data import ConceptDraws, LatentPool, augmented_views, encode_views
from textual_inversion.photos import find_photos, load_photo


@pytest.mark.parametrize("size_hw", [(24, 32), (48, 40)])
def test_views_fill_the_size_and_repeat_with_their_seed(photo_folder: Path, size_hw: tuple[int, int]) -> None:
    photos = [load_photo(path) for path in find_photos(photo_folder)]
    first, again, other = (list(augmented_views(photos, size_hw, seed)) for seed in (1, 1, 2))
    assert len(first) == 3 * 3 and {view.shape for view in first} == {(*size_hw, 3)}
    assert all(view.dtype == np.uint8 for view in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0], first[1])


def test_views_of_a_plain_photo_have_no_black_border(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SHIFT": 0.4, "ZOOM": 0.5, "RELIGHT": 0}.items():
        monkeypatch.setattr(data, name, value)
    for view in augmented_views([np.full((30, 50, 3), 180, np.uint8)], (24, 32), seed=0):
        assert (view == 180).all()


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views are cropped, and otherwise as the photo is."""
    for name in ("SHIFT", "ZOOM", "RELIGHT", "FLIP_PROBABILITY"):
        monkeypatch.setattr(data, name, 0)


@pytest.mark.usefixtures("unchanged")
def test_no_augmentation_leaves_the_photo(photo_folder: Path) -> None:
    photo = load_photo(photo_folder / "2.png")  # has the wanted size already
    assert np.array_equal(next(augmented_views([photo], (24, 32), seed=3)), photo)


@pytest.mark.usefixtures("unchanged")
def test_photos_keep_their_proportions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "VIEWS_PER_PHOTO", 20)
    photo = np.zeros((20, 90, 3), np.uint8)
    photo[5:15, 40:50] = 255  # a square in the middle of a wide photo
    views = np.stack(list(augmented_views([photo], (40, 60), seed=0)))
    whole = [view for view in views[..., 0] > 127 if view.any() and not (view[:, 0] | view[:, -1]).any()]
    for view in whole:
        ys, xs = np.nonzero(view)
        assert np.ptp(ys) == pytest.approx(np.ptp(xs), abs=2)
        assert np.ptp(ys) == pytest.approx(19, abs=2)
    assert 0 < len(whole) < 20


def test_encoding_does_not_depend_on_the_batch_size(
    tiny_pipeline, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "VIEWS_PER_PHOTO", 1)
    photos = [load_photo(path) for path in find_photos(photo_folder)]
    views = list(augmented_views(photos, (24, 32), seed=0))

    def brightness(batch: list[np.ndarray]) -> torch.Tensor:
        return torch.tensor([float(view.mean()) for view in batch])[:, None, None, None].expand(-1, 1, 3, 4)

    whole, single = (encode_views(tiny_pipeline.vae, iter(views), brightness, batch_size=size) for size in (3, 2))
    assert torch.equal(whole.weights, single.weights) and torch.equal(whole.weights, brightness(views))
    factor = tiny_pipeline.vae_scale_factor
    assert whole.mean.shape == whole.std.shape == (3, 4, 24 // factor, 32 // factor)
    assert torch.allclose(whole.mean, single.mean, atol=1e-5) and torch.allclose(whole.std, single.std, atol=1e-5)
    assert not whole.mean.requires_grad


def make_pool(num: int) -> LatentPool:
    """Views whose latents are near their index, and whose weights are their index."""
    index = torch.arange(float(num)).reshape(num, 1, 1, 1)
    return LatentPool(index.expand(num, 4, 3, 2), torch.full((num, 4, 3, 2), 0.1), index.expand(num, 1, 3, 2))


def test_draws_are_decided_by_seed_process_and_number() -> None:
    pool = make_pool(5)
    draws = ConceptDraws(pool, [("a", "b")] * 5, batch_size=4, seed=7)
    stream = iter(draws)
    next(stream), next(stream)
    third = next(stream)
    resumed = next(iter(draws.starting(2, rank=0)))
    for name in ("latents", "weights", "noise", "timestep_fractions"):
        assert torch.equal(third[name], resumed[name])
    assert third["captions"] == resumed["captions"] and set(third["captions"]) <= {"a", "b"}
    others = [
        draws.draw(3),
        next(iter(draws.starting(2, rank=1))),
        ConceptDraws(pool, [("a",)] * 5, batch_size=4, seed=8).draw(2),
    ]
    assert all(not torch.equal(third["noise"], other["noise"]) for other in others)
    assert (third["latents"] - third["latents"].round()).abs().std() < 0.2  # near one of the pool's means


def test_views_come_with_their_own_captions_and_weights() -> None:
    captions = [(f"{view} one", f"{view} two") for view in range(5)]
    draws = ConceptDraws(make_pool(5), captions, batch_size=4, seed=0)
    seen = set()
    for draw in (draws.draw(step) for step in range(40)):
        views = draw["weights"][:, 0, 0, 0]
        assert [text.split()[0] for text in draw["captions"]] == [str(int(view)) for view in views]
        assert ((draw["latents"].mean((1, 2, 3)) - views).abs() < 0.2).all()
        seen |= set(draw["captions"])
    assert seen == {text for own in captions for text in own}


def test_timesteps_are_spread_evenly() -> None:
    draws = ConceptDraws(make_pool(1), [("a",)], batch_size=4, seed=0)
    fractions = torch.stack([draws.draw(step)["timestep_fractions"] for step in range(200)])
    assert ((fractions * 4).floor() == torch.arange(4)).all()
    assert abs(fractions.mean().item() - 0.5) < 0.02 and fractions.max() < 1
