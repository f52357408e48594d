"""Fine-tuning on several GPUs: which they are, and that what ultralytics starts on each of them can train."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from diffugen.config.loader import validate
from diffugen.config.settings import DetectorConfig
from diffugen.datasets.folder import write_dataset
from diffugen.detector import model as detector
from diffugen.detector.model import import_ultralytics, load_detector, new_detector, save_detector
from diffugen.detector.training import finetune, gpus, images_per_epoch, train, training_options
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", [0]), ("cuda", [0]), ("cuda:1", [1]), ("0,2", [0, 2]), ("cuda:0,1", [0, 1]), ("cpu", []), ("mps", [])],
)
def test_the_gpus_that_a_device_names(device: str, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = validate({"device": device}, DetectorConfig)
    assert gpus(config) == expected
    if len(expected) > 1:
        assert training_options(config)["device"] == ",".join(map(str, expected))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "0,3"}, "setting 'detector.device' is '0,3', but there are 3 GPUs"),
        ({"device": "1,1"}, "name each that is to be used once"),
        ({"device": "0,1,2"}, "setting 'detector.batch_size' is 16, which 3 GPUs cannot share evenly"),
        ({"device": "gpu"}, "setting 'detector.device' is 'gpu', but there are 3 GPUs"),
        ({"device": "0,"}, "setting 'detector.device' is '0,', but"),
    ],
)
def test_gpus_that_cannot_be_used_are_named(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UserError, match=message):
        gpus(validate(settings, DetectorConfig))


@pytest.mark.slow
def test_what_ultralytics_starts_on_each_gpu_trains_like_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pickles the trainer, our callbacks included, and unpickles it in processes that know nothing of ours."""
    masks = np.zeros((1, 48, 64), bool)
    masks[0, 8:40, 8:48] = True
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    items = [
        Sample.labelled(str(k), image, Instances.from_masks(masks, [0]), "train") for k, image in enumerate(images)
    ]
    write_dataset(tmp_path / "data", items, ["tent"])
    save_detector(new_detector(["tent"]), tmp_path / "base.safetensors")
    config = DetectorConfig(imgsz=64, epochs=1, batch_size=4, device="cpu")

    def tune(name: str) -> dict[str, torch.Tensor]:
        out = tmp_path / f"{name}.pt"
        data = tmp_path / "data" / "data.yaml"
        finetune(tmp_path / "base.safetensors", data, out, config, seed=3, workdir=tmp_path / name, progress=False)
        return load_detector(out).model.state_dict()  # type: ignore[union-attr]

    expected = tune("here")
    import_ultralytics()
    from ultralytics.models.yolo.segment import SegmentationTrainer
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    def launch(trainer: Any) -> None:
        file = generate_ddp_file(trainer)
        try:
            subprocess.run([sys.executable, file], check=True)
        finally:
            ddp_cleanup(trainer, file)

    monkeypatch.setattr(detector, "gpus", lambda config: [0, 1])
    monkeypatch.setattr(SegmentationTrainer, "train", launch)
    there = tune("there")
    assert all(torch.allclose(there[key], value, atol=1e-5) for key, value in expected.items())


@pytest.mark.parametrize(
    ("num_images", "expected"), [(1, 64), (4, 64), (5, 65), (40, 80), (50, 50), (64, 64), (200, 200)]
)
def test_an_epoch_over_few_images_repeats_them(num_images: int, expected: int) -> None:
    assert images_per_epoch(num_images) == expected


def test_fine_tuning_on_few_images_sees_them_several_times(tmp_path: Path) -> None:
    """Four photos in batches of 16 would be one step an epoch."""
    items = [
        Sample.labelled(name, np.full((48, 64, 3), 90, np.uint8), Instances.empty((48, 64)), "train") for name in "abcd"
    ]
    write_dataset(tmp_path / "data", items, ["tent"])
    seen: list[str] = []
    yolo = new_detector(["tent"])
    yolo.add_callback("on_train_epoch_start", lambda trainer: seen.extend(trainer.train_loader.dataset.im_files))
    config = DetectorConfig(imgsz=64, epochs=1, batch_size=16, device="cpu")
    train(yolo, tmp_path / "data" / "data.yaml", config, seed=0, workdir=tmp_path / "work", progress=False)
    assert Counter(Path(file).stem for file in seen) == dict.fromkeys("abcd", 16)


@pytest.mark.parametrize(
    ("train_is", "num_seen"),
    [("images/train", 64), (["images/train", "images/val"], 66), ("images", 66), ("train.txt", 4)],
)
def test_training_images_may_be_given_as_ultralytics_takes_them(tmp_path: Path, train_is: Any, num_seen: int) -> None:
    image, nothing = np.full((48, 64, 3), 90, np.uint8), Instances.empty((48, 64))
    items = [Sample.labelled(name, image, nothing, "train") for name in "abcd"]
    items += [Sample.labelled(name, image, nothing, "val") for name in "ef"]
    data = tmp_path / "data: #1"
    write_dataset(data, items, ["tent"])
    (data / "train.txt").write_text("".join(f"./images/train/{name}.png\n" for name in "abcd"))
    (data / "data.yaml").write_text(yaml.safe_dump({"train": train_is, "val": "images/val", "names": ["tent"]}))
    seen: list[str] = []
    yolo = new_detector(["tent"])
    yolo.add_callback("on_train_epoch_start", lambda trainer: seen.extend(trainer.train_loader.dataset.im_files))
    config = DetectorConfig(imgsz=64, epochs=1, batch_size=16, device="cpu")
    train(yolo, data / "data.yaml", config, seed=0, workdir=tmp_path / "work", progress=False)
    assert len(seen) == num_seen
