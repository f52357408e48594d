"""`diffugen export` and `diffugen export-model`: a dataset or a detector in another format."""

from __future__ import annotations

import argparse
from typing import Any

from diffugen.cli.options import DATASET, OUT_HINTS, add_command, dataset_path, fraction, image_size, names, split_name
from diffugen.command_line import path_option


def add_export(commands: Any) -> None:
    """`diffugen export`."""
    parser = add_command(
        commands,
        "export",
        "convert a dataset from one format into another",
        "Reads folders in YOLO-seg's (data.yaml), PASCAL VOC's or Hugging Face's imagefolder layout, and COCO JSON\n"
        "files. --format yolo and --format coco write the same folder: data.yaml with labels/ for\n"
        "`yolo segment train`, and coco/<split>.json for COCO's tools.",
        "diffugen export instances_val.json --images val --out converted --masks polygon\n"
        "  diffugen export runs/demo/dataset --format imagefolder --out for-hugging-face",
        hints=OUT_HINTS
        | {
            "source": "give the dataset without an option",
            "data": "give the dataset without an option",
            "model": "`diffugen export-model FILE --out FILE` converts a detector",
            "weights": "`diffugen export-model FILE --out FILE` converts a detector",
        },
    )
    parser.add_argument("source", type=dataset_path, metavar="SOURCE", help=f"{DATASET} or COCO JSON file")
    parser.add_argument("--out", type=path_option, metavar="DIR", required=True, help="folder of the converted dataset")
    parser.add_argument(
        "--format",
        choices=("yolo", "coco", "voc", "imagefolder", "webdataset"),
        default="yolo",
        help="of the written folder (default: yolo, which has COCO's files too); webdataset: tar shards",
    )
    parser.add_argument("--images", type=path_option, metavar="DIR", help="images of a JSON file (default: beside it)")
    parser.add_argument(
        "--split", type=split_name, metavar="NAME", help="only this split; of a JSON file its name (default: train)"
    )
    parser.add_argument("--classes", type=names, metavar="A,B", help="only these classes, in this order (default: all)")
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
        class_names=arguments.classes,
        layout="yolo" if arguments.format == "coco" else arguments.format,  # one folder has both
        masks=arguments.masks,
        drop_duplicates=arguments.drop_duplicates,
    )


def add_export_model(commands: Any) -> None:
    """`diffugen export-model`."""
    parser = add_command(
        commands,
        "export-model",
        "write a trained detector as ONNX",
        "`diffugen predict` and ultralytics read the file as they read the checkpoint. Other ONNX runtimes get\n"
        "YOLOv8-seg's outputs, before non-maximum suppression. Needs `pip install 'diffugen[onnx]'`.",
        "diffugen export-model runs/demo/best.pt --out best.onnx",
        hints=OUT_HINTS | {"model": "give the file without an option", "weights": "give the file without an option"},
    )
    parser.add_argument("weights", type=path_option, metavar="WEIGHTS", help="trained detector (.pt, .safetensors)")
    parser.add_argument("--out", type=path_option, metavar="FILE", required=True, help="the .onnx file")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="of the written file (default: onnx)")
    parser.add_argument("--imgsz", type=image_size, metavar="PIXELS", help="size of its input (default: as trained)")
    parser.set_defaults(run=_export_model)


def _export_model(arguments: argparse.Namespace) -> None:
    from diffugen.detector.onnx_export import export_onnx

    print(f"detector: {export_onnx(arguments.weights, arguments.out, imgsz=arguments.imgsz)}")
