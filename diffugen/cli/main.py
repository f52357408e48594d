"""The `diffugen` command. Heavy imports wait until a subcommand needs them, so that help comes at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffugen.cli.evaluate import add_evaluate
from diffugen.cli.export import add_export
from diffugen.cli.generate import _add_generate
from diffugen.cli.label import add_label
from diffugen.cli.options import add_command, image_size
from diffugen.cli.predict import add_predict
from diffugen.command_line import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console command; `argv` defaults to the process's arguments."""
    arguments = build_parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """All subcommands and their help."""
    parser = argparse.ArgumentParser(
        prog="diffugen",
        description="Labelled images from diffusion models: generate, label, predict, measure, convert.",
        epilog="`diffugen COMMAND --help` explains each command, with an example.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_generate(commands)
    add_label(commands)
    add_predict(commands)
    add_evaluate(commands)
    add_export(commands)
    _add_export_model(commands)
    _add_schema(commands)
    return parser


def _add_export_model(commands: Any) -> None:
    parser = add_command(
        commands,
        "export-model",
        "write a trained detector as ONNX",
        "`diffugen predict` and ultralytics read the file as they read the checkpoint; other ONNX runtimes\n"
        "get YOLOv8-seg's outputs, before non-maximum suppression. Needs `pip install 'diffugen[onnx]'`.",
        "diffugen export-model runs/demo/best.pt --out best.onnx",
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="trained detector (.pt, .safetensors)")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the .onnx file")
    parser.add_argument("--imgsz", type=image_size, metavar="PIXELS", help="size it looks at (default: as trained)")
    parser.set_defaults(run=_export_model)


def _add_schema(commands: Any) -> None:
    parser = add_command(
        commands,
        "schema",
        "print the JSON schema of the config of `diffugen generate`",
        "Editors that are told of it check and complete a config while it is written.",
        "diffugen schema > generate.schema.json",
    )
    parser.set_defaults(run=_schema)


def _export_model(arguments: argparse.Namespace) -> None:
    from diffugen.detector.onnx_export import export_onnx

    print(f"detector: {export_onnx(arguments.weights, arguments.out, imgsz=arguments.imgsz)}")


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from diffugen.config.dataset import DatasetConfig

    print(json.dumps(DatasetConfig.model_json_schema(), indent=2))


if __name__ == "__main__":
    sys.exit(main())
