"""`diffugen evaluate`: a detector, or a set of labels, against ground truth."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffugen.cli.options import (
    DATASET,
    DETECTOR,
    DETECTOR_HINTS,
    add_class_map,
    add_command,
    add_detector_options,
    dataset_path,
)
from diffugen.command_line import path_option
from diffugen.errors import UserError


def add_evaluate(commands: Any) -> None:
    """`diffugen evaluate`."""
    parser = add_command(
        commands,
        "evaluate",
        "measure a detector, or labels, against a dataset with ground truth",
        "Give either --weights (a trained detector) or --labels (a dataset of the same images, by path).\n"
        "Prints box and mask average precision, IoU, precision and recall, for each class.",
        "diffugen evaluate --weights runs/demo/best.pt --data runs/grand-piano-truth --json scores.json\n"
        "  diffugen evaluate --labels labelled --data truth --split val",
        hints=DETECTOR_HINTS
        | {"save-json": "write --json FILE", "plots": "leave it out", "source": "give the dataset by --data"},
    )
    parser.add_argument("--weights", "--model", type=path_option, metavar="FILE", help=DETECTOR)
    text = f"labels to measure: {DATASET} or COCO JSON file"
    parser.add_argument("--labels", type=dataset_path, metavar="DATASET", help=text)
    text = f"the ground truth: {DATASET} or COCO JSON file"
    parser.add_argument("--data", type=dataset_path, metavar="DATASET", required=True, help=text)
    parser.add_argument("--images", type=path_option, metavar="DIR", help="images of a JSON file (default: beside it)")
    parser.add_argument(
        "--split", metavar="NAME", help="split of the ground truth (default: test, else val, else another)"
    )
    parser.add_argument("--json", type=path_option, metavar="FILE", help="where to write the figures")
    add_detector_options(parser, "0.25; labels: 0")
    add_class_map(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from diffugen.class_maps import parse_class_map
    from diffugen.datasets.folder import check_images
    from diffugen.evaluation.scorecard import score_detector, score_labels, table_of
    from diffugen.files import write_json
    from diffugen.outputs import check_output_file

    if (arguments.weights is None) == (arguments.labels is None):
        raise UserError("evaluate needs either --weights (a detector) or --labels (a dataset); give one of them")
    datasets = [path for path in (arguments.data, arguments.labels) if path is not None]
    check_images(arguments.images, datasets)
    options = {
        "split": arguments.split,
        "images": arguments.images,
        "class_names": arguments.classes,
    }
    if arguments.score_threshold is not None:
        options["score_threshold"] = arguments.score_threshold
    if arguments.json is not None:
        check_output_file(arguments.json, _inputs(arguments), option="--json", is_own=_is_own)
    if arguments.labels is not None:
        if arguments.map:
            raise UserError("--map is for --weights; labels are compared by the names of their classes")
        scores = score_labels(arguments.labels, arguments.data, **options)
    else:
        options |= {"class_map": parse_class_map(arguments.map), "imgsz": arguments.imgsz, "device": arguments.device}
        scores = score_detector(arguments.weights, arguments.data, **options)
    print(table_of(scores))
    if arguments.json is not None:
        write_json(arguments.json, scores)


def _inputs(arguments: argparse.Namespace) -> Iterator[Path]:
    """All that the command reads; whoever reads a dataset that is none reports it."""
    from diffugen.datasets.folder import image_folders

    for path in (arguments.data, arguments.labels, arguments.weights, arguments.images):
        if path is not None:
            yield path
    for dataset in (arguments.data, arguments.labels):
        if dataset is not None:
            with suppress(UserError):
                yield from image_folders(dataset, arguments.images)


def _is_own(path: Path) -> bool:
    """Whether a file is what the command writes."""
    from diffugen.files import read_json

    try:
        scores = read_json(path)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(scores, dict) and {"average_precision", "labels"} <= set(scores)
