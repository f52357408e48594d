"""Features of objects: of the weighted part of an image only, whatever its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffugen.detector.features import NUM_SCALES, object_features
from diffugen.detector.model import new_detector


@pytest.fixture(scope="module")
def detector() -> object:
    torch.manual_seed(0)
    return new_detector(["car"])


def half_and_half() -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8)
    image[:, 64:] //= 8
    return image


def test_features_have_unit_length_and_follow_the_heat(detector: object) -> None:
    image, left = half_and_half(), np.zeros((8, 16), np.float32)
    left[:, :6] = 1
    found = object_features(detector, [image, image, image], [left, left[:, ::-1], left], imgsz=128, device="cpu")
    assert found.shape[:2] == (3, NUM_SCALES)
    assert np.linalg.norm(found, axis=2) == pytest.approx(np.ones((3, NUM_SCALES)), abs=1e-5)
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1], atol=1e-2)


def test_heat_of_any_size_and_a_flat_map_are_fine(detector: object) -> None:
    heats = [np.ones((3, 5), np.float32), np.random.default_rng(0).random((50, 70)).astype(np.float32)]
    found = object_features(detector, [half_and_half()] * 2, heats, imgsz=64, device="cpu")
    assert np.isfinite(found).all()


def test_no_images_have_no_features(detector: object) -> None:
    assert len(object_features(detector, [], [], imgsz=64, device="cpu")) == 0
