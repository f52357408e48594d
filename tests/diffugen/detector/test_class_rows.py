"""What a base detector knows under several names is there, as one class, before any learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffugen.toyworld
from diffugen.config.settings import DetectorConfig
from diffugen.datasets.folder import write_dataset
from diffugen.detector import training
from diffugen.detector.class_rows import carry_rows, check_class_map, joint_row
from diffugen.detector.model import load_detector, new_detector, predict
from diffugen.detector.training import finetune
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample
from diffugen.toyworld import render, sample_scene

WEIGHTS = Path(diffugen.toyworld.__file__).parent / "weights" / "detector.safetensors"


def start_of(yolo: Any, class_names: list[str]) -> Any:
    """The network that ultralytics' trainer starts from for a dataset of these classes."""
    from ultralytics.nn.tasks import SegmentationModel

    network = SegmentationModel(yolo.model.yaml, nc=len(class_names), verbose=False)
    network.names = dict(enumerate(class_names))
    network.load(yolo.model, verbose=False)
    return network


def rows_of(network: Any) -> list[torch.Tensor]:
    return [layers[-1].weight.detach()[:, :, 0, 0].clone() for layers in network.model[-1].cv3]


@pytest.mark.parametrize(
    ("class_map", "classes", "sources"),
    [
        ({"vehicle": ["car", "bus"]}, ["dog", "vehicle"], {0: ["dog"], 1: ["car", "bus"]}),
        ({"car": ["car", "bus"]}, ["car", "bus"], {0: ["car", "bus"], 1: ["bus"]}),
        ({"Car": ["bus"]}, ["dog", "Car"], {0: ["dog"], 1: ["bus"]}),
        ({"car": ["bus"], "bus": ["car"]}, ["car", "bus"], {0: ["bus"], 1: ["car"]}),
        ({"dog": ["car"], "pet": ["dog"]}, ["pet", "dog"], {0: ["dog"], 1: ["car"]}),
    ],
    ids=["joined", "own name", "other case", "swapped", "in a row"],
)
def test_each_class_starts_with_the_rows_of_its_sources(
    class_map: dict[str, list[str]], classes: list[str], sources: dict[int, list[str]]
) -> None:
    names = ["car", "bus", "dog", "sky"]
    yolo = new_detector(names)
    torch.nn.init.normal_(yolo.model.model[-1].cv3[0][-1].weight)  # type: ignore[union-attr]
    before = rows_of(yolo.model)
    carry_rows(yolo, class_map, [], 64)
    after = rows_of(start_of(yolo, classes))
    for old, new in zip(before, after, strict=True):
        for number, theirs in sources.items():
            rows = old[[names.index(name) for name in theirs]]
            expected, _ = joint_row(rows, torch.zeros(len(rows)), torch.zeros(0, rows.shape[1]))
            torch.testing.assert_close(new[number], expected, rtol=1e-4, atol=1e-5)


def test_without_features_a_joint_row_grows_along_each_of_its_rows() -> None:
    none = torch.zeros(0, 3)
    rows = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    weight, bias = joint_row(rows, torch.tensor([-3.0, -2.0, -4.0]), none)
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0, 3.0]))
    assert bias == -2
    same, _ = joint_row(rows[[1, 1, 1]], torch.zeros(3), none)
    torch.testing.assert_close(same, rows[1])


def test_with_features_a_joint_row_answers_like_the_strongest() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 12, generator=generator)
    features[:200, 0] += 6
    features[200:400, 1] += 6
    rows = torch.zeros(2, 12)
    rows[0, 0] = rows[1, 1] = 2
    weight, bias = joint_row(rows, torch.tensor([-8.0, -8.0]), features)
    strongest = (features @ rows.T - 8).amax(dim=1)
    same = ((features @ weight + bias > 0) == (strongest > 0)).float().mean()
    assert same > 0.97


def test_a_class_that_the_base_does_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"setting 'detector\.class_map\.car' has the class 'lorry', which .* bus, dog"):
        check_class_map({0: "bus", 1: "dog"}, {"car": ["bus", "lorry"]}, "detector.class_map")


def test_the_start_of_a_fine_tune_finds_what_the_base_finds() -> None:
    """Two classes of the toy world as one: at the start as good as the base detector with a class map."""
    images = [render(sample_scene(seed, kinds=("car", "tent"))).image for seed in range(9)]
    options: dict[str, Any] = {"class_names": ["thing"], "device": "cpu"}
    base, start = load_detector(WEIGHTS), load_detector(WEIGHTS)
    carry_rows(start, {"thing": ["car", "tent"]}, images[6:], 128)
    expected = predict(base, images[:6], class_map={"car": "thing", "tent": "thing"}, **options)
    found = predict(start, images[:6], **options)
    both = [(one.masks.any(axis=0), other.masks.any(axis=0)) for one, other in zip(expected, found, strict=True)]
    assert sum(one.sum() for one, _ in both) > 1000
    assert sum((one & other).sum() for one, other in both) > 0.9 * sum((one | other).sum() for one, other in both)


def test_a_fine_tune_starts_with_the_joint_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate so small that nothing is learned; the rows are fitted to the dataset's own images."""
    given: list[tuple[int, ...]] = []

    def carried(yolo: Any, class_map: Any, images: Any, imgsz: int) -> None:
        given.extend(image.shape for image in images)
        carry_rows(yolo, class_map, images, imgsz)

    monkeypatch.setattr(training, "carry_rows", carried)
    masks = np.zeros((1, 48, 64), bool)
    masks[0, 8:40, 8:48] = True
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    labels = Instances.from_masks(masks, [0])
    samples = [Sample.labelled(str(number), image, labels, "train") for number, image in enumerate(images)]
    write_dataset(tmp_path / "data", samples, ["thing", "cone"])
    config = DetectorConfig(imgsz=64, epochs=1, batch_size=4, device="cpu", learning_rate=1e-9)
    options: dict[str, Any] = {
        "class_map": {"thing": ["car", "tent"]},
        "seed": 0,
        "workdir": tmp_path,
        "progress": False,
    }
    out = finetune(WEIGHTS, tmp_path / "data" / "data.yaml", tmp_path / "out.pt", config, **options)
    expected = load_detector(WEIGHTS)
    carry_rows(expected, options["class_map"], list(images), 64)
    number = list(expected.names.values()).index("thing")
    assert given == [(48, 64, 3)] * 4
    for row, old in zip(rows_of(load_detector(out).model), rows_of(expected.model), strict=True):
        torch.testing.assert_close(row[0], old[number], rtol=0.01, atol=0.01)
