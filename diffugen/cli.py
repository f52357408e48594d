"""The `diffugen` command. Heavy imports wait until a subcommand needs them, so that help comes at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffugen.command_line import run_command
from diffugen.config_errors import ConfigError

__all__ = ["build_parser", "main", "run_command"]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console command; `argv` defaults to the process's arguments."""
    arguments = build_parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """All subcommands and their help."""
    parser = argparse.ArgumentParser(
        prog="diffugen",
        description="Labelled images from diffusion models: generate, label, predict, convert.",
        epilog="`diffugen COMMAND --help` explains each command, with an example.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_generate(commands)
    _add_label(commands)
    _add_predict(commands)
    _add_export(commands)
    _add_export_model(commands)
    _add_schema(commands)
    return parser


def _add(commands: Any, name: str, summary: str, details: str, example: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper() + summary[1:]}.\n\n{details}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_generate(commands: Any) -> None:
    parser = _add(
        commands,
        "generate",
        "generate images from prompt templates, or variations of images, and label them by cross-attention",
        "Writes OUT/dataset (YOLO-seg and COCO), OUT/samples.jsonl (a line per image: prompt, seed, labels,\n"
        "whether it was kept and why not), OUT/images and OUT/heatmaps. Given again, it goes on.\n"
        "Configs of DiffuGen's first release run as they are.",
        "diffugen generate configs/generate.json --out runs/first --set num_images=100",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="JSON config; see `diffugen schema`")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: runs/<CONFIG>)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting: generate.width=768"
    )
    parser.add_argument("--dry-run", action="store_true", help="print prompts, counts and estimates, keep nothing")
    parser.add_argument(
        "--task", choices=("txt2img", "img2img", "inpaint"), help="one task of a config of DiffuGen's first release"
    )
    parser.set_defaults(run=_generate)


def _add_label(commands: Any) -> None:
    parser = _add(
        commands,
        "label",
        "label a folder of photos or a dataset, by a detector or by attention",
        "Give either --weights (a trained detector) or --model with --object (a diffusion model looks for\n"
        "the words in the image, by cross-attention).\n"
        "Writes a dataset (YOLO-seg and COCO) to OUT; the images are copied.",
        "diffugen label photos --weights runs/demo/best.pt --out labelled\n"
        '  diffugen label photos --model MODEL_FOLDER --object "grand-piano=grand piano" --out labelled',
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of images, or dataset (data.yaml)")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the dataset's folder")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained detector (.pt, .safetensors, .onnx)")
    parser.add_argument("--model", metavar="MODEL", help="diffusion model: folder, .safetensors file or hub id")
    parser.add_argument(
        "--embeddings",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="learned token for --model",
    )
    parser.add_argument(
        "--object",
        action="append",
        default=[],
        metavar="CLASS=WORDS",
        help="what --model looks for; repeatable",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="caption with these words (default: a photo of a WORDS)")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of a folder of photos (default: train)")
    _add_detector_options(parser)
    parser.set_defaults(run=_label)


def _add_predict(commands: Any) -> None:
    parser = _add(
        commands,
        "predict",
        "find objects on a folder of images with a trained detector",
        "Writes OUT/overlays (what was found, drawn on the images), OUT/masks (16-bit PNG: 0 is background,\n"
        "k the k-th object) and OUT/instances.json (classes, scores, boxes, masks as COCO run lengths).",
        "diffugen predict photos --weights runs/demo/best.pt --out found",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", required=True, help="detector (.pt, .safetensors, .onnx)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="output folder")
    _add_detector_options(parser)
    parser.set_defaults(run=_predict)


def _add_detector_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group = parser.add_argument_group("options of the detector")
    group.add_argument("--classes", metavar="A,B", help="only these, in this order (default: all it knows)")
    group.add_argument(
        "--score-threshold",
        type=_fraction,
        default=0.25,
        metavar="S",
        help="drop lower scores (default: 0.25)",
    )
    group.add_argument("--imgsz", type=_size, metavar="PIXELS", help="size it looks at (default: as trained)")


def _add_export(commands: Any) -> None:
    parser = _add(
        commands,
        "export",
        "convert a dataset between YOLO-seg and COCO",
        "Reads a YOLO-seg folder (data.yaml) or a COCO JSON file. The written folder has both forms:\n"
        "data.yaml with labels/ for `yolo segment train`, and coco/<split>.json for COCO's tools.",
        "diffugen export instances_val.json --images val --out converted --masks polygon",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="YOLO-seg folder, or COCO JSON file")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder of the converted dataset")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images of a COCO file (default: beside it)")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of a COCO file (default: train)")
    parser.add_argument("--classes", metavar="A,B", help="only these classes, in this order (default: all)")
    parser.add_argument(
        "--masks",
        choices=("rle", "polygon"),
        default="rle",
        help="masks in the COCO file: run lengths are exact",
    )
    parser.set_defaults(run=_export)


def _add_export_model(commands: Any) -> None:
    parser = _add(
        commands,
        "export-model",
        "write a trained detector as ONNX",
        "`diffugen predict` and ultralytics read the file as they read the checkpoint; other ONNX runtimes\n"
        "get YOLOv8-seg's outputs, before non-maximum suppression. Needs `pip install 'diffugen[onnx]'`.",
        "diffugen export-model runs/demo/best.pt --out best.onnx",
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="trained detector (.pt, .safetensors)")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the .onnx file")
    parser.add_argument("--imgsz", type=_size, metavar="PIXELS", help="size it looks at (default: as trained)")
    parser.set_defaults(run=_export_model)


def _add_schema(commands: Any) -> None:
    parser = _add(
        commands,
        "schema",
        "print the JSON schema of the config of `diffugen generate`",
        "Editors that are told of it check and complete a config while it is written.",
        "diffugen schema > generate.schema.json",
    )
    parser.set_defaults(run=_schema)


def _size(text: str) -> int:
    value = int(text)
    if value < 32 or value % 32:
        raise argparse.ArgumentTypeError(f"{text} must be a multiple of 32")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1")
    return value


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text is not None else None


def _generate(arguments: argparse.Namespace) -> None:
    from diffugen.dataset_jobs import load_jobs
    from diffugen.generate_command import generate_dataset

    jobs = load_jobs(arguments.config, arguments.set, out=arguments.out, task=arguments.task)
    for job in jobs:
        source = getattr(job.config.task, "source", None)
        if arguments.dry_run and source and not source.exists() and source in (other.out.resolve() for other in jobs):
            print(f"\n{job.config.task.kind}: starts from {source}, which has to be there first")
            continue
        generate_dataset(job.config, job.out, dry_run=arguments.dry_run)


def _label(arguments: argparse.Namespace) -> None:
    from diffugen.label_photos import attention_labeler, detector_labeler, label_images

    if (arguments.weights is None) == (arguments.model is None):
        raise ConfigError("label needs either --weights (a detector) or --model (a diffusion model); give one of them")
    if arguments.weights is not None:
        labeler = detector_labeler(
            arguments.weights,
            _names(arguments.classes),
            arguments.score_threshold,
            arguments.imgsz,
            arguments.device,
        )
    elif arguments.classes is not None:
        raise ConfigError("--classes is for --weights; name the classes of --model in --object CLASS=WORDS")
    else:
        labeler = attention_labeler(
            arguments.model, arguments.embeddings, arguments.object, arguments.prompt, arguments.device
        )
    label_images(arguments.source, arguments.out, labeler, split=arguments.split)


def _predict(arguments: argparse.Namespace) -> None:
    from diffugen.commands import predict_folder

    predict_folder(
        arguments.folder,
        arguments.out,
        arguments.weights,
        class_names=_names(arguments.classes),
        score_threshold=arguments.score_threshold,
        imgsz=arguments.imgsz,
        device=arguments.device,
    )


def _export(arguments: argparse.Namespace) -> None:
    from diffugen.commands import export_dataset

    export_dataset(
        arguments.source,
        arguments.out,
        images=arguments.images,
        split=arguments.split,
        class_names=_names(arguments.classes),
        masks=arguments.masks,
    )


def _export_model(arguments: argparse.Namespace) -> None:
    from diffugen.onnx_export import export_onnx

    print(f"detector: {export_onnx(arguments.weights, arguments.out, imgsz=arguments.imgsz)}")


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from diffugen.dataset_config import DatasetConfig

    print(json.dumps(DatasetConfig.model_json_schema(), indent=2))


if __name__ == "__main__":
    sys.exit(main())
