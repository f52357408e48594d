"""A fine-tuned detector is averaged with the base detector, but for what tells classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen.config.settings import DetectorConfig
from diffugen.datasets.folder import write_dataset
from diffugen.detector import training
from diffugen.detector.averaging import KEPT, average_with
from diffugen.detector.model import load_detector, new_detector, save_detector
from diffugen.detector.training import finetune
from diffugen.instances import Instances
from diffugen.sample import Sample


def filled(class_names: Sequence[str], value: float) -> Any:
    yolo = new_detector(class_names)
    with torch.no_grad():
        for tensor in yolo.model.state_dict().values():  # type: ignore[union-attr]
            tensor.fill_(value)
    return yolo


@pytest.mark.parametrize("classes", [["car", "tent"], ["piano", "car", "tent"]])
def test_all_is_averaged_but_what_tells_classes(classes: list[str]) -> None:
    tuned = filled(classes, 0.0)
    average_with(tuned, filled(["car", "tent"], 4.0))
    state = tuned.model.state_dict()
    assert len(state) == 417 and sum("model.22.cv3." in key for key in state) > 6
    for key, value in state.items():
        expected = 0 if "model.22.cv3." in key or not value.is_floating_point() else 4 * KEPT
        assert torch.allclose(value.float(), torch.tensor(float(expected))), key


def test_fine_tuning_hands_over_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.zeros((1, 48, 64), bool)
    masks[0, 8:40, 8:48] = True
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    samples = [Sample.labelled(str(k), one, Instances.from_masks(masks, [0]), "train") for k, one in enumerate(images)]
    write_dataset(tmp_path / "data", samples, ["tent"])
    torch.manual_seed(0)
    save_detector(new_detector(["car"]), tmp_path / "base.safetensors")

    def tuned(name: str) -> dict[str, torch.Tensor]:
        config = DetectorConfig(imgsz=64, epochs=1, batch_size=4, device="cpu")
        data, out = tmp_path / "data" / "data.yaml", tmp_path / f"{name}.pt"
        finetune(tmp_path / "base.safetensors", data, out, config, seed=3, workdir=tmp_path / name, progress=False)
        assert load_detector(out).names == {0: "tent"}
        return load_detector(out).model.state_dict()  # type: ignore[union-attr]

    average = tuned("averaged")
    with monkeypatch.context() as patch:
        patch.setattr(training, "average_with", lambda tuned, base: None)
        alone = tuned("alone")
    begin = load_detector(tmp_path / "base.safetensors").model.state_dict()  # type: ignore[union-attr]
    changed = 0
    for key, value in average.items():
        mixed = (1 - KEPT) * alone[key].float() + KEPT * begin[key].float()
        expected = alone[key].float() if "model.22.cv3." in key else mixed
        assert torch.allclose(value.float(), expected, rtol=2e-3, atol=1e-4), key
        changed += not torch.equal(value, alone[key])
    assert changed > 100


def test_a_later_round_is_averaged_with_the_base_and_not_with_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("base", 1.0), ("start", 2.0)):
        save_detector(filled(["car"], value), tmp_path / f"{name}.safetensors")
    began: list[float] = []

    def train(yolo: Any, data_yaml: Path, *args: Any, **options: Any) -> Path:
        began.append(float(yolo.model.model[0].conv.weight.mean()))
        return tmp_path / "start.safetensors"

    def average(tuned: Any, base: Any) -> None:
        began.append(float(base.model.model[0].conv.weight.mean()))

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "average_with", average)
    monkeypatch.setattr(training, "save_checkpoint", lambda yolo, path: None)
    finetune(
        tmp_path / "base.safetensors",
        tmp_path / "data.yaml",
        tmp_path / "out.pt",
        DetectorConfig(),
        seed=0,
        workdir=tmp_path,
        start=tmp_path / "start.safetensors",
    )
    assert began == [2.0, 1.0]
