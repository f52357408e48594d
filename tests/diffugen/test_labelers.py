"""Detector labels behind the protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffugen.config import ConfigError
from diffugen.labelers import DetectorLabeler, Labeler, LabelInput

CLASSES = ("car", "tent")


def test_a_detector_labels_images_of_any_size(tmp_path: Path) -> None:
    """Untrained, it finds anything; what it finds has the dataset's classes and the images' sizes."""
    from diffugen.detector import new_detector, save_detector

    weights = tmp_path / "detector.safetensors"
    save_detector(new_detector(["truck", "van", "tree"]), weights)
    labeler: Labeler = DetectorLabeler(
        weights,
        CLASSES,
        score_threshold=1e-6,
        imgsz=96,
        class_map={"truck": "car", "van": "car"},
        device="cpu",
    )
    sizes = ((96, 160), (70, 41))
    images = [np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8) for size_hw in sizes]
    found = labeler.label([LabelInput(image) for image in images])
    assert [instances.size_hw for instances in found] == list(sizes)
    assert all(set(instances.class_ids) <= {0} for instances in found)
    assert DetectorLabeler.name == "detector"


def test_a_missing_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.safetensors"):
        DetectorLabeler(tmp_path / "missing.safetensors", CLASSES)
