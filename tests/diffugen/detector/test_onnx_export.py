"""A detector as ONNX finds what the checkpoint finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffugen.cli.main import main
from diffugen.detector.model import load_detector, predict, trained_imgsz
from diffugen.detector.onnx_export import export_onnx
from diffugen.errors import UserError
from diffugen.toyworld import render
from diffugen.toyworld.scene import sample_scene

WEIGHTS = Path(__file__).parents[3] / "diffugen/toyworld/weights/detector.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(WEIGHTS, tmp_path_factory.mktemp("onnx") / "best.onnx")


def test_onnx_finds_the_same_instances(exported: Path) -> None:
    images = [render(sample_scene(seed), size_hw).image for seed in range(3) for size_hw in ((96, 128), (120, 80))]
    original, copy = load_detector(WEIGHTS), load_detector(exported)
    assert copy.names == original.names and trained_imgsz(copy) == trained_imgsz(original) == 128
    names = ["tent", "car", "tree", "cactus", "bench", "house"]
    wanted, found = (predict(yolo, images, class_names=names, device="cpu") for yolo in (original, copy))
    assert sum(map(len, wanted)) > 3
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(a.class_ids, b.class_ids)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.01)
        assert (a.masks != b.masks).mean() < 1e-3


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.onnx"
    assert main(["export-model", str(WEIGHTS), "--out", str(out), "--imgsz", "64"]) == 0
    assert str(out) in capsys.readouterr().out
    assert trained_imgsz(load_detector(out)) == 64
    assert main(["export-model", str(WEIGHTS), "--out", str(tmp_path / "best.pt")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err


def test_onnx_cannot_be_exported_again(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are ONNX already; copy the file"):
        export_onnx(exported, tmp_path / "again.onnx")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"broken.onnx are no ONNX file of a detector"):
        load_detector(broken)
