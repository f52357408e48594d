"""Detectors as ONNX, for use without torch: on phones, in browsers, in other languages."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from diffugen.detector.model import load_detector, trained_imgsz
from diffugen.errors import UserError
from diffugen.files import atomic_path
from diffugen.outputs import check_output_file

WRITER = "diffugen export-model"


def export_onnx(weights: Path, out: Path, *, imgsz: int | None = None) -> Path:
    """Write a detector as an ONNX file, which `load_detector` reads as well.

    Inputs are float32 [batch, 3, height, width] RGB in [0, 1], sides multiples of 32; the outputs are those of
    YOLOv8-seg, before non-maximum suppression. Class names and image size go into the file's metadata.

    Args:
        weights: as for `load_detector`.
        out: the file, its suffix .onnx.
        imgsz: the size that users of the file should scale images to, pixels; None means as trained.

    Raises:
        UserError: the weights are broken, `out` is no .onnx file or may not be written, or the package onnx is missing.
    """
    if Path(out).suffix != ".onnx":
        raise UserError(f"--out {out} must end in .onnx; give such a name")
    check_output_file(Path(out), [Path(weights)], is_own=_is_own)
    if importlib.util.find_spec("onnx") is None:
        raise UserError("exporting to ONNX needs the package onnx; install 'diffugen[onnx]'")
    yolo = load_detector(weights)
    if not hasattr(yolo.model, "args"):
        raise UserError(f"detector weights {weights} are ONNX already; copy the file")
    if isinstance(yolo.model.args, dict):
        yolo.model.args = {"data": "", **yolo.model.args}  # ultralytics expects it of a trained model
    with tempfile.TemporaryDirectory() as folder:
        yolo.model.pt_path = str(Path(folder) / "model.pt")  # the export is written beside it
        # dynamic: images that are not square are padded as little as they are for the checkpoint
        written = yolo.export(
            format="onnx", imgsz=imgsz or trained_imgsz(yolo), dynamic=True, simplify=False, device="cpu", verbose=False
        )
        with atomic_path(Path(out)) as temporary:
            temporary.write_bytes(_marked(Path(written)))
    return Path(out)


def _marked(path: Path) -> bytes:
    """An ONNX file with a note in its metadata of who wrote it, so that it may be replaced one day."""
    import onnx

    model = onnx.load(path)
    model.metadata_props.add(key="writer", value=WRITER)
    return model.SerializeToString()


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:  # metadata come last
        file.seek(max(0, path.stat().st_size - 100_000))
        return WRITER.encode() in file.read()
