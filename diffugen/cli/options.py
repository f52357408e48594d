"""What the subcommands of `diffugen` share: their parser, and the types of their options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.cli.parser import CommandParser
from diffugen.command_line import path_option
from diffugen.errors import UserError
from diffugen.naming import MAX_BYTES

if TYPE_CHECKING:
    from diffugen.config.executor import ExecutorConfig

DETECTOR = "detector (.pt, .safetensors, .onnx)"

MAX_IMGSZ = 8192
"""Largest size that a detector may be asked to look at, pixels."""

TOY_HELP = "'toy' is the small model that comes with diffugen: it has never seen a photo, and is for trying things out"

DATASET = "dataset folder (YOLO-seg, VOC, imagefolder)"

OUT_HINTS = dict.fromkeys(("project", "name", "save-dir", "output"), "give the output folder by --out DIR")

CONFIG_HINTS = OUT_HINTS | {
    "config": "give the config's path without an option",
    "data": "give the config's path without an option",
    "resume": "leave it out: the same command resumes a stopped run",
    "seed": "write --set seed=1",
    "model": "write --set model.path=MODEL",
    "weights": "write --set detector.base_weights=FILE",
    "device": "write --set model.device=cuda (of the diffusion model), detector.device=0 (of fine-tuning)",
    "epochs": "write --set detector.epochs=50",
    "imgsz": "write --set detector.imgsz=640",
    "batch": "write --set generate.batch_size=8 (images), detector.batch_size=16 (fine-tuning)",
    "conf": "write --set rounds.filter.min_score=0.5 (a loop), label.score_threshold=0.5 (diffugen generate)",
    "num-images": "write --set num_images=100, or in a loop rounds.num_images=100",
    "num-rounds": "write --set rounds.num_rounds=5",
    "steps": "write --set generate.num_inference_steps=30 (images), concept.steps=300 (a concept)",
}
"""What to write instead of an option that is a setting of the config."""

DETECTOR_HINTS = OUT_HINTS | {
    "max-det": "it is 100 per image, as COCO counts",
    "half": "leave it out",
    "batch": "leave it out",
    "task": "leave it out: detectors here are segmentation models",
}


def toy_weights() -> Path:
    """The folder of the weights that come with diffugen."""
    return Path(__file__).parents[1] / "toyworld" / "weights"


def diffusion_model(text: str) -> str:
    """The type of a diffusion model's option: its folder, file or hub id; "toy" is the pipeline of `toy_weights`."""
    return str(toy_weights() / "pipeline") if text == "toy" else model_name(text)


def model_name(text: str) -> str:
    """The type of a model's option: its folder, file or hub id."""
    path_option(text)
    return text


def add_command(
    commands: Any, name: str, summary: str, details: str, example: str, hints: Mapping[str, str] | None = None
) -> CommandParser:
    """Add a subcommand whose help ends with an example.

    Args:
        commands: from `add_subparsers` of a `CommandParser`.
        name: of the subcommand.
        summary: its line in the list of commands.
        details: further text of its help.
        example: command lines.
        hints: see `CommandParser`.
    """
    parser: CommandParser = commands.add_parser(
        name,
        description=f"{summary[0].upper() + summary[1:]}.\n\n{details}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        hints=hints,
        summary=summary,
    )
    parser.set_defaults(parser=parser)
    return parser


def image_size(text: str) -> int:
    """A size that a detector looks at, pixels."""
    value = int(text) if text.isdecimal() and len(text) < 10 else 0
    if not 32 <= value <= MAX_IMGSZ or value % 32:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} must be a multiple of 32, at most {MAX_IMGSZ}")
    return value


def split_name(text: str) -> str:
    """A split's name, which folders are called after."""
    plain = text.strip() == text != "" and Path(text).name == text and text.isprintable()
    if not plain or text == ".." or len(text.encode()) > MAX_BYTES:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no plain name, such as train")
    return text


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text[:60]!r} must be a number from 0 to 1")


def dataset_path(text: str) -> Path:
    """A dataset's folder or COCO file; a data.yaml, as ultralytics takes it, stands for its folder."""
    path = path_option(text)
    return path.parent if path.name in ("data.yaml", "data.yml") and path.is_file() else path


def device(text: str) -> str:
    """A device's name; a number, as ultralytics takes it, is that of a GPU."""
    return f"cuda:{text}" if text.isdecimal() else text


def split_names(text: str) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def names(text: str) -> list[str]:
    """Names between commas, each once."""
    found = split_names(text)
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names, each once, with commas between them")
    return found


def add_set(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--set`, which changes settings of the config."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change a setting: {example}; several at once or repeated. Paths are relative to the working folder",
    )


def executor(text: str) -> ExecutorConfig:
    """Workers, such as "num_workers=2" or "kind=ray,address=auto,num_workers=8"."""
    from diffugen.config.executor import ExecutorConfig
    from diffugen.config.loader import apply_override, validate

    values: dict[str, Any] = {}
    try:
        for part in text.split(","):
            if "=" not in part:
                raise argparse.ArgumentTypeError(f"{part[:60]!r} must have the form KEY=VALUE, such as num_workers=2")
            if (key := part.partition("=")[0].strip()) in values:
                raise argparse.ArgumentTypeError(f"{key} is given twice")
            apply_override(values, part)
        return validate(values, ExecutorConfig)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Add `--executor`."""
    parser.add_argument(
        "--executor",
        type=executor,
        metavar="KEY=VALUE,...",
        help="share the work among workers: num_workers=2, or kind=ray,address=auto,num_workers=8 (docs/scale.md)",
    )


def add_overlays(parser: argparse.ArgumentParser) -> None:
    """Add `--overlays`."""
    parser.add_argument(
        "--overlays", action="store_true", help="draw masks, classes and scores: contact sheets in OUT/overlays"
    )


def add_detector_options(parser: argparse.ArgumentParser, score_threshold: str) -> None:
    """Add how a detector (or another network) looks at images."""
    parser.add_argument(
        "--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or 1, mps (default: auto)"
    )
    group = parser.add_argument_group("options of the detector")
    group.add_argument("--classes", type=names, metavar="A,B", help="only these, in this order (default: all it knows)")
    group.add_argument(
        "--conf",
        "--score-threshold",
        dest="score_threshold",
        type=fraction,
        metavar="S",
        help=f"confidence threshold: lower scores are dropped (default: {score_threshold})",
    )
    group.add_argument(
        "--imgsz", type=image_size, metavar="PIXELS", help="size that images are scaled to (default: as trained)"
    )


def add_class_map(parser: argparse.ArgumentParser) -> None:
    """Add `--map`."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="MODEL=DATASET",
        help="the model's class becomes a class of the dataset; repeatable, many to one (equal names need none)",
    )
