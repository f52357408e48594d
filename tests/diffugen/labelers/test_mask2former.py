"""Labels of a Mask2Former that a few seconds of training have taught red and blue rectangles."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import build_mask2former
from transformers import Mask2FormerImageProcessor, SwinConfig

from diffugen.errors import UserError
from diffugen.evaluation.metrics import label_quality
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.labelers.mask2former import Mask2FormerLabeler, network_size
from diffugen.masks.matching import mask_iou, without_repeats

SIZE_HW = (64, 96)
COLOURS = {"truck": (230, 40, 30), "van": (30, 60, 230)}


def scene(rng: np.random.Generator, num_objects: int = 1) -> tuple[np.ndarray, Instances]:
    """A noisy picture with a red truck or a blue van."""
    image = rng.integers(0, 80, (*SIZE_HW, 3), np.uint8)
    masks, class_ids = np.zeros((num_objects, *SIZE_HW), bool), []
    for mask in masks:
        y, x = rng.integers(4, 30), rng.integers(4, 60)
        mask[y : y + 24, x : x + 32] = True
        class_ids.append(int(rng.integers(2)))
        image[mask] = list(COLOURS.values())[class_ids[-1]]
    return image, Instances.from_masks(masks, class_ids)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a few seconds and saved, its processor too."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = build_mask2former(COLOURS).train()
    processor = Mask2FormerImageProcessor(size={"height": SIZE_HW[0], "width": SIZE_HW[1]})
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(100):
        images, truths = zip(*(scene(rng) for _ in range(4)), strict=True)
        loss = network(
            pixel_values=processor(list(images), return_tensors="pt")["pixel_values"],
            mask_labels=[torch.tensor(truth.masks).float() for truth in truths],
            class_labels=[torch.tensor(truth.class_ids) for truth in truths],
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("models") / "mask2former"
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, Instances]]:
    rng = np.random.default_rng(1)
    return [scene(rng) for _ in range(8)]


def test_it_finds_what_it_was_taught(model: Path, scenes: list[tuple[np.ndarray, Instances]]) -> None:
    labeler: Labeler = Mask2FormerLabeler(model, device="cpu")
    found = labeler.label([LabelInput(image) for image, _ in scenes])
    quality = label_quality(zip(found, (truth for _, truth in scenes), strict=True))
    assert quality["mean_iou"] > 0.8
    assert quality["precision"] > 0.8


def test_images_of_any_size_come_back_at_their_own(model: Path, scenes: list[tuple[np.ndarray, Instances]]) -> None:
    """One of them is the scene at another shape: its object stays where it is in the picture."""
    image, truth = scenes[0]
    tall = np.repeat(image, 2, axis=0)[:117]
    narrow = image[:, :41]
    labeler = Mask2FormerLabeler(model, device="cpu")
    found = labeler.label([LabelInput(picture) for picture in (tall, image, narrow)])
    assert [instances.size_hw for instances in found] == [(117, 96), SIZE_HW, (64, 41)]
    (alone,) = labeler.label([LabelInput(image)])
    np.testing.assert_array_equal(found[1].masks, alone.masks)
    stretched = np.repeat(truth.masks, 2, axis=1)[:, :117]
    assert mask_iou(found[0].masks, stretched).max() > 0.75


def test_classes_are_mapped_many_to_one_and_partially(model: Path, scenes: list[tuple[np.ndarray, Instances]]) -> None:
    inputs = [LabelInput(image) for image, _ in scenes]
    truths = [truth for _, truth in scenes]
    assert {int(truth.class_ids[0]) for truth in truths} == {0, 1}  # both are there
    merged = Mask2FormerLabeler(model, ["tent", "car"], class_map={"truck": "car", "van": "car"}, device="cpu").label(
        inputs
    )
    assert all(set(found.class_ids) == {1} for found in merged)
    only_vans = Mask2FormerLabeler(model, ["van"], device="cpu").label(inputs)
    assert [bool(len(found)) for found in only_vans] == [bool(truth.class_ids[0]) for truth in truths]
    assert Mask2FormerLabeler(model, class_map={"van": "car"}, device="cpu").class_names == ["car"]


def test_nothing_above_the_threshold_is_an_ordinary_result(model: Path, scenes: list) -> None:
    (found,) = Mask2FormerLabeler(model, score_threshold=1.0, device="cpu").label([LabelInput(scenes[0][0])])
    assert len(found) == 0 and found.size_hw == SIZE_HW
    everything = Mask2FormerLabeler(model, score_threshold=0.0, device="cpu").label([LabelInput(scenes[0][0])])[0]
    assert len(everything) > 0
    assert (np.diff(everything.scores) <= 0).all()


def test_scores_and_masks_are_those_of_transformers(model: Path, scenes: list) -> None:
    """Their post-processing keeps repeats and works at 384x384, so strong objects are compared, loosely."""
    image = scenes[0][0]
    labeler = Mask2FormerLabeler(model, device="cpu")
    (ours,) = labeler.label([LabelInput(image)])
    pixels = labeler.processor([image], return_tensors="pt")
    with torch.no_grad():
        outputs = labeler.model(**pixels)
    (theirs,) = labeler.processor.post_process_instance_segmentation(
        outputs, threshold=0.5, target_sizes=[SIZE_HW], return_binary_maps=True
    )
    best = max(theirs["segments_info"], key=lambda segment: segment["score"])
    assert labeler.class_names[ours.class_ids[0]] == labeler.model_names[best["label_id"]]
    assert ours.scores[0] == pytest.approx(best["score"], abs=0.03)
    mask = theirs["segmentation"][best["id"]].numpy().astype(bool)
    assert mask_iou(ours.masks[:1], mask[None])[0, 0] > 0.9


def test_repeats_of_one_class_count_once() -> None:
    masks = np.zeros((4, *SIZE_HW), bool)
    masks[:3, 10:30, 10:40] = True
    masks[1, 10, 10:20] = False
    masks[3, 40:50, 60:80] = True
    found = without_repeats(Instances.from_masks(masks, [0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6]))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert len(without_repeats(Instances.empty(SIZE_HW))) == 0


@pytest.mark.parametrize(
    ("size_hw", "size", "expected"),
    [
        ((480, 640), {"shortest_edge": 800, "longest_edge": 1333}, (800, 1056)),
        ((300, 1200), {"shortest_edge": 800, "longest_edge": 1333}, (320, 1344)),
        ((64, 96), {"height": 64, "width": 96}, (64, 96)),
        ((5, 7), {"shortest_edge": 16}, (32, 32)),
    ],
)
def test_the_network_sees_multiples_of_its_stride(
    size_hw: tuple[int, int], size: dict[str, int], expected: tuple[int, int]
) -> None:
    assert network_size(size_hw, size) == expected


def test_what_is_no_mask2former_is_reported_in_a_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Mask2Former .*gone cannot be loaded"):
        Mask2FormerLabeler(tmp_path / "gone")
    SwinConfig().save_pretrained(tmp_path / "swin")
    with pytest.raises(UserError, match="is a model of the kind 'swin'; give a Mask2Former"):
        Mask2FormerLabeler(tmp_path / "swin")
    with pytest.raises(UserError, match="the model has no class 'ship'"):
        Mask2FormerLabeler(model, class_map={"ship": "car"})


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        Mask2FormerLabeler(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone_config": None, "backbone": "resnet50", "use_timm_backbone": True}, "'resnet50', which would be"),
        ({"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50"}}, "'timm_backbone', which would"),
        ({"backbone_config": {"model_type": "resnet"}}, "'resnet', which would be fetched"),
        ({"auto_map": {"AutoConfig": "helper.Config"}}, "asks for auto_map"),
        ({"attn_implementation": "somebody/kernel"}, "asks for attn_implementation"),
        ({"num_queries": "many"}, "cannot be loaded"),
        ({"feature_size": 48}, "cannot be loaded|lacks"),
        ({"decoder_layers": 3}, "lacks"),
    ],
)
def test_a_config_fetches_and_imports_nothing(
    model: Path, tmp_path: Path, change: dict, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*place: object, **options: object) -> None:
        pytest.fail(f"asks the network: {place}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    shutil.copytree(model, tmp_path / "changed")
    path = tmp_path / "changed" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=sentence):
        Mask2FormerLabeler(tmp_path / "changed", device="cpu")


@pytest.mark.parametrize("content", [b"", b"\xff\x10\0\0\0\0\0\0{", b"half"])
def test_damaged_weights_are_one_sentence(model: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(model, tmp_path / "changed")
    (tmp_path / "changed" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="cannot be loaded"):
        Mask2FormerLabeler(tmp_path / "changed", device="cpu")
