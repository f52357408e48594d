"""`diffugen label`: photos or a dataset, labelled by a detector, Mask2Former or attention."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.cli.options import (
    DATASET,
    DETECTOR,
    DETECTOR_HINTS,
    add_class_map,
    add_command,
    add_detector_options,
    add_executor,
    add_overlays,
    dataset_path,
    diffusion_model,
    model_name,
    split_name,
)
from diffugen.command_line import path_option
from diffugen.errors import UserError

if TYPE_CHECKING:
    from diffugen.config.settings import AttentionLabelConfig
    from diffugen.executor.images import Find, Workers
    from diffugen.labelers.base import Labeler


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
        hints=DETECTOR_HINTS
        | {
            "source": "give the folder without an option",
            "format": "the written folder has YOLO-seg and COCO; `diffugen export` converts it",
        },
    )
    parser.add_argument("source", type=dataset_path, metavar="SOURCE", help=f"folder of images, or {DATASET}")
    parser.add_argument("--out", type=path_option, metavar="DIR", required=True, help="the written dataset's folder")
    add_overlays(parser)
    add_executor(parser)
    parser.add_argument("--recursive", action="store_true", help="read the images of sub-folders too")
    parser.add_argument(
        "--split",
        type=split_name,
        metavar="NAME",
        help="only this split; of a folder of photos its name (default: train)",
    )
    parser.add_argument("--weights", type=path_option, metavar="FILE", help=f"trained {DETECTOR}")
    parser.add_argument(
        "--mask2former",
        type=model_name,
        metavar="MODEL",
        help="Mask2Former: folder in transformers' format, or hub id",
    )
    parser.add_argument(
        "--model",
        type=diffusion_model,
        metavar="MODEL",
        help="diffusion model: folder, .safetensors file, hub id, or toy (the small model that comes with diffugen)",
    )
    group = parser.add_argument_group("options of --model")
    group.add_argument(
        "--embeddings", type=path_option, action="append", default=[], metavar="FILE", help="learned token"
    )
    group.add_argument(
        "--object", action="append", default=[], metavar="CLASS=WORDS", help="what it looks for; repeatable"
    )
    group.add_argument("--prompt", metavar="TEXT", help="caption with these words (default: a photo of a WORDS)")
    group.add_argument(
        "--decoder",
        type=path_option,
        metavar="FILE",
        help="learned from a few drawn masks; it says where the objects are",
    )
    add_detector_options(parser, "0.25; Mask2Former: 0.5")
    add_class_map(parser)
    parser.add_argument(
        "--outline",
        metavar="METHOD",
        help="what draws the masks' outlines: grabcut, learned=FILE, sam=MODEL, none (default: grabcut for --model, "
        "else none)",
    )
    parser.set_defaults(run=_label)


def _label(arguments: argparse.Namespace) -> None:
    given = [value for value in (arguments.weights, arguments.mask2former, arguments.model) if value is not None]
    if len(given) != 1:
        raise UserError("label needs --weights (a detector), --mask2former or --model (a diffusion model); give one")
    if arguments.model is not None and (arguments.classes is not None or arguments.map):
        raise UserError(
            "--classes and --map are for --weights and --mask2former; name the classes of --model in "
            "--object CLASS=WORDS"
        )
    if arguments.decoder is not None and arguments.model is None:
        raise UserError("--decoder reads a diffusion model's features; give --model and --object too")
    if arguments.model is not None and Path(arguments.model).suffix in (".pt", ".onnx"):
        raise UserError(f"--model is for diffusion models; give the detector as --weights {arguments.model}")
    from diffugen.labelers.label_folder import check_source, label_folder
    from diffugen.outputs import check_output
    from diffugen.progress import say

    models = [Path(value) for value in (*given, *arguments.embeddings, arguments.decoder) if value is not None]
    check_output(arguments.out, "label", [arguments.source, *models])
    check_source(arguments.source, arguments.out, arguments.split)
    _label_config(arguments.outline)  # a mistake in it is told before anything is loaded
    say(f"loading {given[0]}")
    labeler, class_names = _labeler(arguments)
    label_folder(
        arguments.source,
        arguments.out,
        labeler,
        class_names,
        split=arguments.split,
        recursive=arguments.recursive,
        overlays=arguments.overlays,
        workers=None if arguments.executor is None else _workers(arguments, models),
    )


_LABELER_OPTIONS = (
    *("weights", "mask2former", "model", "embeddings", "object", "prompt", "decoder", "outline"),
    *("device", "classes", "score_threshold", "imgsz", "map"),
)
"""The options that labels follow from."""


def _workers(arguments: argparse.Namespace, models: Sequence[Path]) -> Workers:
    """Workers that load the same labeler."""
    from diffugen.executor.images import ImageJob, Workers
    from diffugen.labelers.label_folder import LABEL_BATCH

    options = {name: _absolute(getattr(arguments, name)) for name in _LABELER_OPTIONS}
    options |= {name: _absolute_model(options[name]) for name in ("mask2former", "model")}
    method, equals, model = (options["outline"] or "").partition("=")
    if equals:
        models = [*models, Path(model)]
        options["outline"] = f"{method}={_absolute_model(model)}"
    settings = {name: str(value) for name, value in options.items() if name != "device"}
    inputs = tuple(model.resolve() for model in models)
    job = ImageJob(partial(_load_find, options), settings, inputs, LABEL_BATCH)
    return Workers(arguments.executor, job, arguments.device)


def _absolute(value: Any) -> Any:
    """An option as a process in another folder understands it."""
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    return Path(value).resolve() if isinstance(value, Path) else value


def _absolute_model(value: Any) -> Any:
    """The path of a model as a process in another folder understands it; a hub id stays."""
    return str(Path(value).resolve()) if isinstance(value, str) and Path(value).exists() else value


def _load_find(options: dict[str, Any]) -> Find:
    from diffugen.labelers.base import LabelInput

    labeler, _ = _labeler(argparse.Namespace(**options))
    return lambda images: labeler.label([LabelInput(image) for image in images])


def _labeler(arguments: argparse.Namespace) -> tuple[Labeler, list[str]]:
    """The labeler that the options ask for, and the classes that it gives."""
    labeler, class_names = _plain_labeler(arguments)
    if arguments.outline is not None and arguments.model is None:
        labeler = _outlined(labeler, arguments)
    return labeler, class_names


def _plain_labeler(arguments: argparse.Namespace) -> tuple[Labeler, list[str]]:
    if arguments.model is not None:
        from diffugen.labelers.photo_attention import PhotoAttentionLabeler, caption_prompt

        prompt = caption_prompt(arguments.object, arguments.prompt)
        label = _label_config(arguments.outline)
        attention = PhotoAttentionLabeler(
            arguments.model, arguments.embeddings, prompt, arguments.device, label, arguments.decoder
        )
        return attention, attention.class_names
    from diffugen.class_maps import parse_class_map

    options: dict[str, Any] = {"class_map": parse_class_map(arguments.map), "device": arguments.device}
    if arguments.score_threshold is not None:
        options["score_threshold"] = arguments.score_threshold
    wanted = arguments.classes
    if wanted is not None:  # a map may lead to classes that are not wanted
        options["class_map"] = {old: new for old, new in options["class_map"].items() if new in wanted}
    return _network_labeler(arguments, wanted, options)


def _label_config(outline: str | None) -> AttentionLabelConfig:
    """The settings of labels whose masks are outlined as `--outline` says."""
    from diffugen.config.loader import validate
    from diffugen.config.settings import AttentionLabelConfig

    if outline is None:
        return AttentionLabelConfig()
    method, _, model = outline.partition("=")
    try:
        return validate({"outline": {"method": method, "model": model or None}}, AttentionLabelConfig)
    except UserError as error:
        raise UserError(f"--outline {outline}: {error}") from None


def _outlined(labeler: Labeler, arguments: argparse.Namespace) -> Labeler:
    from diffugen.labelers.outlining import OutlinedLabeler, load_outliner

    return OutlinedLabeler(labeler, load_outliner(_label_config(arguments.outline), arguments.device))


def _network_labeler(
    arguments: argparse.Namespace, wanted: list[str] | None, options: dict[str, Any]
) -> tuple[Labeler, list[str]]:
    from diffugen.class_maps import mapped_classes

    if arguments.weights is not None:
        from diffugen.labelers.detector import DetectorLabeler

        detector = DetectorLabeler(arguments.weights, wanted, imgsz=arguments.imgsz, **options)
        mapped_classes(detector.model.names, wanted, options["class_map"], str(arguments.weights))
        return detector, detector.class_names

    from diffugen.labelers.mask2former import Mask2FormerLabeler

    mask2former = Mask2FormerLabeler(arguments.mask2former, wanted, **options)
    mapped_classes(mask2former.model_names, wanted, options["class_map"], str(arguments.mask2former))
    return mask2former, mask2former.class_names
