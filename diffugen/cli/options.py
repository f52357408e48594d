"""What the subcommands of `diffugen` share: how they explain themselves, and the types of their options."""

from __future__ import annotations

import argparse
from typing import Any

_DETECTOR = "detector (.pt, .safetensors, .onnx)"

_DATASET = "dataset folder (YOLO-seg, VOC, imagefolder)"


def add_command(commands: Any, name: str, summary: str, details: str, example: str) -> argparse.ArgumentParser:
    """A subcommand whose help ends with an example."""
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper() + summary[1:]}.\n\n{details}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def image_size(text: str) -> int:
    """A size that a detector looks at, pixels."""
    value = int(text)
    if value < 32 or value % 32:
        raise argparse.ArgumentTypeError(f"{text} must be a multiple of 32")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1")
    return value


def names(text: str | None) -> list[str] | None:
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()] if text is not None else None


def _add_detector_options(parser: argparse.ArgumentParser, score_threshold: str) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group = parser.add_argument_group("options of the detector")
    group.add_argument("--classes", metavar="A,B", help="only these, in this order (default: all it knows)")
    group.add_argument(
        "--score-threshold", type=fraction, metavar="S", help=f"drop lower scores (default: {score_threshold})"
    )
    group.add_argument("--imgsz", type=image_size, metavar="PIXELS", help="size it looks at (default: as trained)")


def _add_class_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="MODEL=DATASET",
        help="the model's class becomes a class of the dataset; repeatable, many to one (equal names need none)",
    )
