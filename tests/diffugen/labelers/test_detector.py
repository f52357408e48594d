from pathlib import Path

import numpy as np
import pytest

from diffugen.detector.model import new_detector, save_detector
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers import detector
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.labelers.detector import DetectorLabeler

CLASSES = ("car", "tent")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "detector.safetensors"
    save_detector(new_detector(["truck", "van", "tree"]), path)
    return path


def test_a_detector_labels_images_of_any_size(weights: Path) -> None:
    """Untrained, it finds anything; what it finds has the dataset's classes and the images' sizes."""
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


def test_without_class_names_the_detectors_own_are_taken(weights: Path) -> None:
    assert DetectorLabeler(weights).class_names == ["truck", "van", "tree"]
    assert DetectorLabeler(weights, class_map={"van": "car"}).class_names == ["car"]


def test_a_missing_detector_and_a_wrong_map_are_named(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        DetectorLabeler(tmp_path / "missing.safetensors", CLASSES)
    with pytest.raises(UserError, match="the model has no class 'ship'"):
        DetectorLabeler(weights, class_map={"ship": "car"})


def test_what_two_names_of_one_class_call_one_object_counts_once(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[:2, 2:12, 2:12] = masks[2, 2:12, 15:25] = True
    twice = Instances.from_masks(masks, [0, 0, 0], [0.9, 0.6, 0.5])
    monkeypatch.setattr(detector, "predict", lambda *args, **options: [twice])
    image = LabelInput(np.zeros((20, 30, 3), np.uint8))
    merging = DetectorLabeler(weights, CLASSES, class_map={"truck": "car", "van": "car"})
    assert merging.label([image])[0].scores.tolist() == pytest.approx([0.9, 0.5])
    assert len(DetectorLabeler(weights).label([image])[0]) == 3
