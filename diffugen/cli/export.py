"""`diffugen export`: a dataset in another format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from diffugen.cli.options import _DATASET, add_command, fraction, names


def add_export(commands: Any) -> None:
    """`diffugen export`."""
    parser = add_command(
        commands,
        "export",
        "convert a dataset from one format into another",
        "Reads folders in YOLO-seg's (data.yaml), PASCAL VOC's or Hugging Face's imagefolder layout, and COCO JSON\n"
        "files. --format yolo writes two forms in one folder: data.yaml with labels/ for `yolo segment train`, and\n"
        "coco/<split>.json for COCO's tools.",
        "diffugen export instances_val.json --images val --out converted --masks polygon\n"
        "  diffugen export runs/demo/dataset --format imagefolder --out for-hugging-face",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=f"{_DATASET} or COCO JSON file")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder of the converted dataset")
    parser.add_argument(
        "--format", choices=("yolo", "voc", "imagefolder"), default="yolo", help="of the written folder (default: yolo)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="images of a COCO file (default: beside it)")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of a COCO file (default: train)")
    parser.add_argument("--classes", metavar="A,B", help="only these classes, in this order (default: all)")
    parser.add_argument(
        "--masks", choices=("rle", "polygon"), default="rle", help="masks in the COCO file: run lengths are exact"
    )
    parser.add_argument(
        "--drop-duplicates",
        type=fraction,
        nargs="?",
        const=0.06,
        metavar="DISTANCE",
        help="leave out images that look like an earlier one: share of their hashes' bits that may differ "
        "(without a value: 0.06)",
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from diffugen.datasets.export import export_dataset

    export_dataset(
        arguments.source,
        arguments.out,
        images=arguments.images,
        split=arguments.split,
        class_names=names(arguments.classes),
        layout=arguments.format,
        masks=arguments.masks,
        drop_duplicates=arguments.drop_duplicates,
    )
