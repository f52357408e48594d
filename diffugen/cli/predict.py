"""`diffugen predict`: objects on images."""

from __future__ import annotations

import argparse
from typing import Any

from diffugen.cli.options import (
    DETECTOR,
    DETECTOR_HINTS,
    add_command,
    add_detector_options,
    add_executor,
    add_overlays,
)
from diffugen.cli.parser import CommandParser
from diffugen.command_line import path_option
from diffugen.errors import UserError

_LABELS = "`diffugen label SOURCE --weights FILE --out DIR` writes label files (YOLO-seg) and COCO JSON"


def add_predict(commands: Any) -> None:
    """`diffugen predict`."""
    parser = add_command(
        commands,
        "predict",
        "find objects on images with a trained detector",
        "Writes OUT/masks (16-bit PNG: 0 is background, k the k-th object) and OUT/instances.json (classes, scores,\n"
        "boxes, masks as COCO run lengths); with --overlays also contact sheets of what was found.",
        "diffugen predict photo.jpg --weights runs/demo/best.pt --out found --overlays\n"
        "  diffugen predict photos --weights runs/demo/best.pt --out found --conf 0.5 --device 0",
        hints=DETECTOR_HINTS
        | dict.fromkeys(("save-txt", "save-json", "save-conf", "format"), _LABELS)
        | {
            "save": "write --overlays",
            "show": "write --overlays",
            "save-crop": "leave it out: OUT/instances.json has the boxes",
        },
    )
    parser.add_argument("sources", type=path_option, nargs="*", metavar="SOURCE", help="images, or folders of images")
    parser.add_argument("--source", type=path_option, action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--weights", "--model", type=path_option, metavar="FILE", required=True, help=DETECTOR)
    parser.add_argument("--out", type=path_option, metavar="DIR", required=True, help="output folder")
    parser.add_argument("--recursive", action="store_true", help="read the images of sub-folders too")
    add_overlays(parser)
    add_executor(parser)
    add_detector_options(parser, "the one that the loop found for the checkpoint, else 0.25")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    parser: CommandParser = arguments.parser
    parser.check_no_options(arguments.sources)
    sources = [*arguments.sources, *arguments.source]
    if not sources:
        raise UserError("predict needs images; write diffugen predict SOURCE --weights FILE --out DIR")
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} does not exist; give an image or a folder of images")

    from diffugen.detector.predict_images import predict_images

    predict_images(
        sources,
        arguments.out,
        arguments.weights,
        class_names=arguments.classes,
        score_threshold=arguments.score_threshold,
        imgsz=arguments.imgsz,
        device=arguments.device,
        recursive=arguments.recursive,
        overlays=arguments.overlays,
        executor=arguments.executor,
    )
