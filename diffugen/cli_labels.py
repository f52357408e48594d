"""The subcommands about labels: label, predict, evaluate, export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.class_maps import mapped_classes, parse_class_map
from diffugen.cli_options import add_command, fraction, image_size, names
from diffugen.config_errors import ConfigError

if TYPE_CHECKING:
    from diffugen.labelers import Labeler

_DETECTOR = "detector (.pt, .safetensors, .onnx)"
_DATASET = "dataset folder (YOLO-seg, VOC, imagefolder)"


def add_label(commands: Any) -> None:
    """`diffugen label`."""
    parser = add_command(
        commands,
        "label",
        "label a folder of photos or a dataset, by a detector, Mask2Former or attention",
        "Give one of --weights (a trained detector), --mask2former (a model in transformers' format) and --model\n"
        "with --object (a diffusion model looks for the words in the image, by cross-attention).\n"
        "Writes a dataset (YOLO-seg and COCO) to OUT; the images are copied.",
        "diffugen label photos --weights runs/demo/best.pt --out labelled\n"
        "  diffugen label photos --mask2former MODEL_FOLDER --map truck=car --map bus=car --out labelled\n"
        '  diffugen label photos --model MODEL_FOLDER --object "grand-piano=grand piano" --out labelled',
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=f"folder of images, or {_DATASET}")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the written dataset's folder")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of a folder of photos (default: train)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help=f"trained {_DETECTOR}")
    parser.add_argument("--mask2former", metavar="MODEL", help="Mask2Former: folder in transformers' format, or hub id")
    parser.add_argument("--model", metavar="MODEL", help="diffusion model: folder, .safetensors file or hub id")
    group = parser.add_argument_group("options of --model")
    group.add_argument("--embeddings", type=Path, action="append", default=[], metavar="FILE", help="learned token")
    group.add_argument(
        "--object", action="append", default=[], metavar="CLASS=WORDS", help="what it looks for; repeatable"
    )
    group.add_argument("--prompt", metavar="TEXT", help="caption with these words (default: a photo of a WORDS)")
    _add_detector_options(parser, "0.25; Mask2Former: 0.5")
    _add_class_map(parser)
    parser.set_defaults(run=_label)


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
    parser.add_argument("--weights", type=Path, metavar="FILE", required=True, help=_DETECTOR)
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="output folder")
    _add_detector_options(parser, "0.25")
    parser.set_defaults(run=_predict)


def add_evaluate(commands: Any) -> None:
    """`diffugen evaluate`."""
    parser = add_command(
        commands,
        "evaluate",
        "measure a detector, or labels, against a dataset with truth",
        "Give either --weights (a trained detector) or --labels (a dataset of the same images, by name).\n"
        "Prints box and mask average precision, IoU, precision and recall, for each class.",
        "diffugen evaluate --weights runs/demo/best.pt --data runs/grand-piano-truth --json scores.json\n"
        "  diffugen evaluate --labels labelled --data truth --split val",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help=_DETECTOR)
    parser.add_argument("--labels", type=Path, metavar="DATASET", help=f"labels to judge: {_DATASET}, COCO JSON file")
    parser.add_argument(
        "--data", type=Path, metavar="DATASET", required=True, help=f"the truth: {_DATASET} or COCO JSON file"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="images of a COCO file (default: beside it)")
    parser.add_argument("--split", metavar="NAME", help="split of the truth (default: test, else val, else another)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    _add_detector_options(parser, "0.25; labels: 0")
    _add_class_map(parser)
    parser.set_defaults(run=_evaluate)


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


def _label(arguments: argparse.Namespace) -> None:
    from diffugen.label_photos import label_images

    given = [value for value in (arguments.weights, arguments.mask2former, arguments.model) if value is not None]
    if len(given) != 1:
        raise ConfigError("label needs --weights (a detector), --mask2former or --model (a diffusion model); give one")
    if arguments.model is not None and (arguments.classes is not None or arguments.map):
        raise ConfigError(
            "--classes and --map are for --weights and --mask2former; name the classes of --model in "
            "--object CLASS=WORDS"
        )
    labeler, class_names = _labeler(arguments)
    label_images(arguments.source, arguments.out, labeler, class_names, split=arguments.split)


def _labeler(arguments: argparse.Namespace) -> tuple[Labeler, list[str]]:
    """The labeler that the options ask for, and the classes that it gives."""
    if arguments.model is not None:
        from diffugen.photo_attention import PhotoAttentionLabeler, caption_prompt

        prompt = caption_prompt(arguments.object, arguments.prompt)
        attention = PhotoAttentionLabeler(arguments.model, arguments.embeddings, prompt, arguments.device)
        return attention, attention.class_names
    options: dict[str, Any] = {"class_map": parse_class_map(arguments.map), "device": arguments.device}
    if arguments.score_threshold is not None:
        options["score_threshold"] = arguments.score_threshold
    wanted = names(arguments.classes)
    if wanted is not None:  # a map may lead to classes that are not wanted
        options["class_map"] = {old: new for old, new in options["class_map"].items() if new in wanted}
    return _network_labeler(arguments, wanted, options)


def _network_labeler(
    arguments: argparse.Namespace, wanted: list[str] | None, options: dict[str, Any]
) -> tuple[Labeler, list[str]]:
    if arguments.weights is not None:
        from diffugen.detector_labeler import DetectorLabeler

        detector = DetectorLabeler(arguments.weights, wanted, imgsz=arguments.imgsz, **options)
        mapped_classes(detector.model.names, wanted, options["class_map"], str(arguments.weights))
        return detector, detector.class_names

    from diffugen.mask2former import Mask2FormerLabeler

    mask2former = Mask2FormerLabeler(arguments.mask2former, wanted, **options)
    mapped_classes(mask2former.model_names, wanted, options["class_map"], str(arguments.mask2former))
    return mask2former, mask2former.class_names


def _predict(arguments: argparse.Namespace) -> None:
    from diffugen.predict_folder import predict_folder

    predict_folder(
        arguments.folder,
        arguments.out,
        arguments.weights,
        class_names=names(arguments.classes),
        score_threshold=0.25 if arguments.score_threshold is None else arguments.score_threshold,
        imgsz=arguments.imgsz,
        device=arguments.device,
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    from diffugen.files import write_json
    from diffugen.scorecard import score_detector, score_labels, table_of

    if (arguments.weights is None) == (arguments.labels is None):
        raise ConfigError("evaluate needs either --weights (a detector) or --labels (a dataset); give one of them")
    options = {
        "split": arguments.split,
        "images": arguments.images,
        "class_names": names(arguments.classes),
    }
    if arguments.score_threshold is not None:
        options["score_threshold"] = arguments.score_threshold
    if arguments.labels is not None:
        if arguments.map:
            raise ConfigError("--map is for --weights; labels are compared by the names of their classes")
        scores = score_labels(arguments.labels, arguments.data, **options)
    else:
        options |= {"class_map": parse_class_map(arguments.map), "imgsz": arguments.imgsz, "device": arguments.device}
        scores = score_detector(arguments.weights, arguments.data, **options)
    print(table_of(scores))
    if arguments.json is not None:
        write_json(arguments.json, scores)


def _export(arguments: argparse.Namespace) -> None:
    from diffugen.export import export_dataset

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
