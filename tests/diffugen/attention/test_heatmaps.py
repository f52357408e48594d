"""What is kept of an image's attention is checked, and its file gives it back exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffugen.attention.heatmaps import Heatmap, ImageAttention, geometric_mean

RNG = np.random.default_rng(0)


def random_map(*shape: int) -> np.ndarray:
    return RNG.random(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 5)), "float32"),
        (np.zeros((1, 4, 5), np.float32), "float32"),
        (np.full((4, 5), np.nan, np.float32), "finite"),
        (np.full((4, 5), -0.1, np.float32), "not negative"),
    ],
)
def test_maps_are_checked(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Heatmap("car", values)
    with pytest.raises(ValueError, match=message):
        ImageAttention((), values)


def test_maps_fit_together() -> None:
    with pytest.raises(ValueError, match=r"different sizes \[\(4, 5\), \(5, 4\)\]"):
        ImageAttention((Heatmap("car", random_map(4, 5)),), random_map(5, 4))
    with pytest.raises(ValueError, match=r"affinity must be float16 \[h, w, h, w\], not float16 \(2, 3, 3, 2\)"):
        ImageAttention((), random_map(4, 5), affinity=random_map(2, 3, 3, 2).astype(np.float16))


@pytest.mark.parametrize("phrases", [("red car", "tent"), ()])
@pytest.mark.parametrize("with_affinity", [True, False])
def test_files_give_back_what_was_saved(tmp_path: Path, phrases: tuple[str, ...], with_affinity: bool) -> None:
    affinity = random_map(2, 3, 2, 3).astype(np.float16) if with_affinity else None
    heatmaps = tuple(Heatmap(phrase, random_map(4, 5)) for phrase in phrases)
    saved = ImageAttention(heatmaps, random_map(4, 5), 154, affinity)
    saved.save(tmp_path / "a.npz")
    read = ImageAttention.load(tmp_path / "a.npz", phrases)
    assert [heatmap.phrase for heatmap in read.heatmaps] == list(phrases)
    for first, second in zip(read.heatmaps, saved.heatmaps, strict=True):
        np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(read.rest, saved.rest)
    assert read.num_tokens == 154
    assert (read.affinity is None) == (affinity is None)
    if affinity is not None and read.affinity is not None:
        np.testing.assert_array_equal(read.affinity, affinity)


def test_a_file_of_heatmaps_alone_will_do(tmp_path: Path) -> None:
    values = random_map(1, 4, 5)
    np.savez(tmp_path / "a.npz", values=values)
    read = ImageAttention.load(tmp_path / "a.npz", ["car"])
    np.testing.assert_array_equal(read.heatmaps[0].values, values[0])
    assert (read.rest == 0).all() and read.rest.shape == (4, 5)


def test_readings_agree_only_where_all_are_hot() -> None:
    hot, cold = np.full((4, 5), 0.09, np.float32), np.full((4, 5), 0.01, np.float32)
    first = ImageAttention((Heatmap("bench", hot), Heatmap("car", cold)), cold)
    second = ImageAttention((Heatmap("house", cold), Heatmap("bus", cold)), hot)
    mean = geometric_mean([first, second])
    assert [heatmap.phrase for heatmap in mean.heatmaps] == ["bench", "car"]
    np.testing.assert_allclose(mean.heatmaps[0].values, 0.03, rtol=1e-3)
    np.testing.assert_allclose(mean.heatmaps[1].values, 0.01, rtol=1e-3)
    np.testing.assert_allclose(mean.rest, 0.05, rtol=1e-6)
    assert geometric_mean([first]) is first
