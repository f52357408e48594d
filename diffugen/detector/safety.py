"""What the file of a detector may ask for: nothing that runs, nothing that is fetched.

A file may come from anybody. Its pickled part is read by ultralytics' safe loader alone, which is tried once on a
harmless file that would give itself away; layers and activations come from closed lists, as some of ultralytics' own
would fetch weights.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffugen.errors import UserError

_MODELS = {
    "v8/yolov8-seg.yaml": [f"yolov8{scale}-seg.yaml" for scale in "nsmlx"],
    "v8/yolov8-seg-p6.yaml": [f"yolov8{scale}-seg-p6.yaml" for scale in "nsmlx"],
    "v9/yolov9c-seg.yaml": ["yolov9c-seg.yaml"],
    "v9/yolov9e-seg.yaml": ["yolov9e-seg.yaml"],
    "11/yolo11-seg.yaml": [f"yolo11{scale}-seg.yaml" for scale in "nsmlx"],
    "12/yolo12-seg.yaml": [f"yolo12{scale}-seg.yaml" for scale in "nsmlx"],
    "26/yolo26-seg.yaml": [f"yolo26{scale}-seg.yaml" for scale in "nsmlx"],
}  # in ultralytics' folder of models
ARCHITECTURES = tuple(name for names in _MODELS.values() for name in names)
"""The segmenters of ultralytics that a file may name."""

_ACTIVATIONS = {"SiLU()", "ReLU()", "ReLU6()", "LeakyReLU()", "LeakyReLU(0.1)", "Hardswish()", "GELU()", "Mish()"}
_MAX_ROWS, _MAX_REPEATS = 200, 100  # of an architecture; the largest of ultralytics' has 43 and 6

_heard: list[str] = []


def check_architecture(name: object, place: str) -> str:
    """The name of an architecture that ultralytics brings along.

    Raises:
        UserError: it is none of `ARCHITECTURES`, or the working folder has a file that ultralytics would read in its
            place.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"{place} is of the architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    own = next(Path(file).name for file, names in _MODELS.items() if name in names)
    for file in (str(name), own):
        if Path(file).exists():
            raise UserError(
                f"the working folder has a file {file}, which ultralytics would read in place of its own; rename it or "
                "change to another folder"
            )
    return str(name)


def check_network(network: object, place: str) -> None:
    """Check what a checkpoint brings: layers and activations of known segmenters, names, finite weights.

    Raises:
        UserError: anything else, at `place`.
    """
    from ultralytics.nn.tasks import SegmentationModel

    if not isinstance(network, SegmentationModel):
        raise UserError(f"{place} is a {type(network).__name__}; give a segmentation model of ultralytics")
    if not _is_known(network.yaml):
        raise UserError(f"{place} has layers that no segmenter of ultralytics has; give one of {', '.join(_MODELS)}")
    names = network.names
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for n in names.values()):
        raise UserError(f"{place} has no names of classes; give a trained detector")
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"{place} numbers its classes {sorted(names)[:9]}, not from 0 on; give a trained detector")
    check_finite(network.state_dict(), place)


def check_finite(tensors: Mapping[str, torch.Tensor], place: str) -> None:
    """Weights that are no numbers find nothing, without a word.

    Raises:
        UserError: a tensor has NaN or infinite values.
    """
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{place} has values that are no numbers in {key}; train it again or give another file")


def _is_known(config: Any) -> bool:
    if not isinstance(config, Mapping) or not isinstance(config.get("backbone"), list):
        return False
    rows = [*config["backbone"], *config.get("head", ())]
    activation = config.get("activation")
    known_activation = not activation or str(activation).removeprefix("torch.").removeprefix("nn.") in _ACTIVATIONS
    return known_activation and len(rows) <= _MAX_ROWS and all(_is_known_row(row) for row in rows)


def _is_known_row(row: Any) -> bool:
    if not isinstance(row, list | tuple) or len(row) != 4:
        return False
    _, repeats, layer, _ = row
    return isinstance(repeats, int) and repeats <= _MAX_REPEATS and layer in _layers()


@functools.cache
def _layers() -> frozenset[str]:
    """The layers of ultralytics' own segmenters."""
    from ultralytics.utils import ROOT, YAML

    configs = [YAML.load(ROOT / "cfg" / "models" / file) for file in _MODELS]
    return frozenset(row[2] for config in configs for row in [*config["backbone"], *config["head"]])


@contextmanager
def under_plain_name(weights: Path) -> Iterator[Path]:
    """A path of a file for ultralytics, which fetches files that have names of its own, or quotes in their names."""
    with tempfile.TemporaryDirectory(prefix="diffugen-") as folder:
        yield plain_name(weights, Path(folder))


def plain_name(weights: Path, folder: Path) -> Path:
    """A link to a file in a folder, under a name that says nothing."""
    link = folder / f"detector{weights.suffix}"
    try:
        os.symlink(weights.resolve(), link)
    except OSError:  # no file system of links
        shutil.copyfile(weights, link)
    return link


class _Canary:
    """Unpickling this is heard."""

    def __reduce__(self) -> Any:
        return sing, ("an unpickled checkpoint",)


def sing(song: str) -> None:
    """What the canary would do."""
    _heard.append(song)


def check_refuses_pickles(ultralytics: Any) -> None:
    """Load a checkpoint that would run a function of ours, which does no harm: it must be refused.

    Raises:
        UserError: ultralytics ran it, so a stranger's checkpoint could run anything.
    """
    _heard.clear()
    with tempfile.TemporaryDirectory(prefix="diffugen-") as folder:
        path = Path(folder) / "canary.pt"
        torch.save({"model": _Canary()}, path)
        try:
            ultralytics.YOLO(str(path))
            refused = False
        except Exception:  # which one is ultralytics' affair
            refused = True
    if _heard or not refused:
        raise UserError(
            f"ultralytics {ultralytics.__version__} runs code from checkpoints here, as its safe loading is off; "
            "import diffugen before ultralytics, with ultralytics 8.4 and torch 2.6 or newer"
        )
