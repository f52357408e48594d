"""`diffugen predict`: objects in a folder of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from diffugen.cli.options import DETECTOR, add_command, add_detector_options, names


def add_predict(commands: Any) -> None:
    """`diffugen predict`."""
    parser = add_command(
        commands,
        "predict",
        "find objects on a folder of images with a trained detector",
        "Writes OUT/overlays (what was found, drawn on the images), OUT/masks (16-bit PNG: 0 is background,\n"
        "k the k-th object) and OUT/instances.json (classes, scores, boxes, masks as COCO run lengths).",
        "diffugen predict photos --weights runs/demo/best.pt --out found",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images")
    parser.add_argument("--weights", type=Path, metavar="FILE", required=True, help=DETECTOR)
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="output folder")
    parser.add_argument("--recursive", action="store_true", help="read the images of sub-folders too")
    add_detector_options(parser, "0.25")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    from diffugen.detector.predict_folder import predict_folder

    predict_folder(
        arguments.folder,
        arguments.out,
        arguments.weights,
        class_names=names(arguments.classes),
        score_threshold=0.25 if arguments.score_threshold is None else arguments.score_threshold,
        imgsz=arguments.imgsz,
        device=arguments.device,
        recursive=arguments.recursive,
    )
