"""JSON files of annotation tools: reading one, and telling whose it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from diffugen.errors import UserError, reason_of
from diffugen.files import read_text

Kind = Literal["coco", "via", "labelme"]

_COCO_PARTS = ("images", "annotations", "categories")


def read_json_value(path: Path) -> Any:
    """A JSON file's value.

    Raises:
        UserError: it is missing, no UTF-8 or no JSON.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of a dataset")
    try:
        return json.loads(read_text(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({reason_of(error)}); write or download it again") from None


def read_annotations(path: Path) -> tuple[Kind, dict[str, Any]]:
    """A JSON annotation file of a format that is read, and which one it is.

    Raises:
        UserError: it is of another tool (the message says how to convert it), or damaged.
    """
    value = read_json_value(path)
    if isinstance(value, dict):
        if any(part in value for part in _COCO_PARTS) and "_via_img_metadata" not in value and "items" not in value:
            for part in _COCO_PARTS:
                if not isinstance(value.get(part), list):
                    what = "is no list" if part in value else "is missing"
                    raise UserError(f"{path} is not a COCO instance file: {part!r} {what}; give one with images, "
                                      "annotations and categories")  # fmt: skip
            return "coco", value
        if isinstance(value.get("shapes"), list):
            return "labelme", value
        if "_via_img_metadata" in value or is_via(value):
            return "via", value
    raise UserError(f"{path} {_described(value)}")


def is_via(value: dict[str, Any]) -> bool:
    """Whether these are the entries of a VGG Image Annotator file."""
    return bool(value) and all(isinstance(e, dict) and "filename" in e and "regions" in e for e in value.values())


def _described(value: Any) -> str:
    """What another tool's JSON is, and how to convert it."""
    first = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
    if ("data" in first and ("annotations" in first or "predictions" in first)) or "annotation_id" in first:
        return "is a Label Studio export; in Label Studio choose Export, then COCO, and give that file"
    if "image_id" in first and "category_id" in first:
        return "is a list of COCO results without images and categories; give the instance file"
    if "image" in first and "annotations" in first:
        return "is a CreateML file, which has boxes only; convert it to COCO, with outlines"
    if isinstance(value, dict) and "items" in value:
        return "is a Datumaro file; run `datum convert --output-format coco_instances` and give the COCO file"
    if isinstance(value, dict) and "samples" in value:
        return "is a FiftyOne file; export it as COCODetectionDataset and give its labels.json"
    if isinstance(value, dict) and "assets" in value:
        return "is a VoTT project; convert it to COCO and give that file"
    return "is not a COCO instance file, nor one of LabelMe or VIA; give one with images, annotations and categories"
