"""A stranger's detector runs nothing, fetches nothing, and is refused in one sentence."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen.detector import safety
from diffugen.detector.model import import_ultralytics, load_detector, new_detector, predict, save_detector
from diffugen.errors import UserError


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hosts that were looked up or connected to; none can be reached."""
    hosts: list[Any] = []

    def refuse(*place: Any, **options: Any) -> None:
        hosts.append(place)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return hosts


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "detector.safetensors"
    save_detector(new_detector(["car", "tent"]), path)
    return path


def with_metadata(source: Path, target: Path, **changes: str | None) -> Path:
    """A copy of a safetensors file whose metadata are changed; None removes an entry."""
    content = source.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"] | changes
    header["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    encoded = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])
    return target


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "yolo11x-seg.pt"}, "architecture 'yolo11x-seg.pt'; known are"),
        ({"architecture": "../yolov8n-seg.yaml"}, "known are"),
        ({"architecture": "yolov8n.yaml"}, "known are"),  # finds boxes only
        ({"architecture": None}, "architecture None; known are"),
        ({"architecture": "yolov8s-seg.yaml"}, "do not fit their own description"),
        ({"names": "[car"}, "no list of class names"),
        ({"names": "{}"}, "no list of class names"),
        ({"names": "[]"}, "no list of class names"),
        ({"names": '["car", 3]'}, "no list of class names"),
        ({"names": None}, "no list of class names"),
        ({"names": "[" * 100_000}, "no list of class names"),
        ({"names": '["car"]'}, "do not fit their own description"),
        ({"imgsz": "large"}, "no list of class names|no image size"),
        ({"imgsz": "1000000000"}, "no image size from 1 to"),
        ({"format": "something else"}, "not written by save_detector"),
    ],
)
def test_the_metadata_are_data(
    changes: dict[str, str | None], sentence: str, saved: Path, tmp_path: Path, asked: list[Any]
) -> None:
    changed = with_metadata(saved, tmp_path / "changed.safetensors", **changes)
    with pytest.raises(UserError, match=sentence):
        load_detector(changed)
    assert not asked


def test_an_architecture_in_the_working_folder_is_not_read(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov8-seg.yaml").write_text("activation: __import__('os').system('touch ran')\n")
    with pytest.raises(UserError, match=r"working folder has a file yolov8-seg\.yaml"):
        load_detector(saved)


def test_weights_that_are_no_numbers(saved: Path, tmp_path: Path) -> None:
    yolo = load_detector(saved)
    next(yolo.model.parameters()).data[0] = float("nan")
    save_detector(yolo, tmp_path / "nan.safetensors")
    yolo.save(tmp_path / "nan.pt")
    for name in ("nan.safetensors", "nan.pt"):
        with pytest.raises(UserError, match="no numbers in model.0.conv.weight"):
            load_detector(tmp_path / name)


@pytest.mark.parametrize("name", ["yolov5n.pt", "yolo11n-seg.pt", "it's mine.pt", " spaced .pt", "yolov5n6.pt"])
def test_the_file_that_is_there_is_read(saved: Path, tmp_path: Path, asked: list[Any], name: str) -> None:
    """Some of these names ultralytics would look for elsewhere."""
    load_detector(saved).save(tmp_path / name)
    yolo = load_detector(tmp_path / name)
    assert yolo.names == {0: "car", 1: "tent"} and yolo.ckpt_path == str(tmp_path / name)
    assert not asked


def with_config(change: Callable[[dict[str, Any]], None]) -> Callable[[Any], None]:
    return lambda network: change(network.yaml)


def fetching_layer(config: dict[str, Any]) -> None:
    config["backbone"][0] = [-1, 1, "TorchVision", [64, "convnext_tiny", "DEFAULT", True, 2]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_config(fetching_layer), "layers that no segmenter"),
        (with_config(lambda config: config.update(activation="print('ran')")), "layers that no segmenter"),
        (with_config(lambda config: config["head"].append([-1, 10**9, "Conv", [8]])), "layers that no segmenter"),
        (with_config(lambda config: config.pop("backbone")), "layers that no segmenter"),
        (lambda network: setattr(network, "names", {0: "car", 7: "tent"}), "numbers its classes"),
        (lambda network: setattr(network, "names", [1, 2]), "no names of classes"),
        (lambda network: setattr(network, "names", {}), "numbers its classes"),
    ],
)
def test_a_checkpoint_of_other_layers_is_refused(
    change: Callable[[Any], None], sentence: str, saved: Path, tmp_path: Path, asked: list[Any]
) -> None:
    """Training would build these layers anew, and this one fetches weights."""
    yolo = load_detector(saved)
    change(yolo.model)
    torch.save({"model": yolo.model.half(), "train_args": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=sentence):
        load_detector(tmp_path / "other.pt")
    assert not asked


def test_every_known_architecture_is_there() -> None:
    import_ultralytics()
    from ultralytics.utils import ROOT

    assert all((ROOT / "cfg" / "models" / file).is_file() for file in safety._MODELS)


def test_loading_that_unpickles_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ultralytics = import_ultralytics()
    from ultralytics.nn import tasks

    safety.check_refuses_pickles(ultralytics)
    monkeypatch.setattr(tasks, "SAFE_LOAD", False)
    with pytest.raises(UserError, match="runs code from checkpoints"):
        safety.check_refuses_pickles(ultralytics)


def test_an_onnx_file_of_something_else_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    shape = [1, 3, 64, 64]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("images", "output0")]
    node = helper.make_node("Identity", ["images"], ["output0"])
    model = helper.make_model(
        helper.make_graph([node], "same", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    for key, value in {"task": "segment", "imgsz": "[64, 64]", "names": "{0: 'car'}", "stride": "32"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    (tmp_path / "same.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="no ONNX file of a detector"):
        load_detector(tmp_path / "same.onnx")


def test_a_detector_is_used_as_before(saved: Path) -> None:
    found = predict(load_detector(saved), [np.zeros((64, 64, 3), np.uint8)], class_names=["car"], device="cpu")
    assert len(found) == 1
