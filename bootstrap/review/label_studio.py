"""Label Studio's JSON: samples as tasks with pre-annotations, and corrected annotations back as instances.

An instance is one or several polygon regions that carry its number, so that an object in several parts stays one.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np

from diffugen.errors import UserError
from diffugen.instances import Instances, polygons_of
from diffugen.sample import Sample

FROM_NAME, TO_NAME = "label", "image"


def labelling_config(class_names: Sequence[str]) -> str:
    """The XML that a Label Studio project needs for these tasks."""
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in class_names)
    regions = f'<PolygonLabels name="{FROM_NAME}" toName="{TO_NAME}">{labels}</PolygonLabels>'
    return f'<View><Header value="$why"/><Image name="{TO_NAME}" value="$image"/>{regions}</View>'


def to_task(sample: Sample, class_names: Sequence[str]) -> dict[str, Any]:
    """One task: the image as a data URI, why it is doubtful, and its labels as a prediction to start from."""
    encoded = base64.b64encode(sample.image_path.read_bytes()).decode("ascii")
    regions = [
        region
        for number, (mask, class_id) in enumerate(zip(sample.instances.masks, sample.instances.class_ids, strict=True))
        for region in _regions(mask, class_names[class_id], number)
    ]
    why = f"{sample.reason or sample.outcome}: {sample.prompt.text}"
    return {
        "data": {"image": f"data:image/png;base64,{encoded}", "name": sample.name, "why": why},
        "predictions": [{"model_version": sample.labeler, "result": regions}],
    }


def from_task(task: Mapping[str, Any], class_names: Sequence[str], size_hw: tuple[int, int]) -> Instances | None:
    """The instances of a task's newest annotation; None where nobody has annotated it, or it was skipped.

    Args:
        task: from Label Studio's JSON export.
        class_names: what the class ids index.
        size_hw: the image's.

    Raises:
        UserError: a region is no polygon, or of an unknown class.
    """
    done = [entry for entry in task.get("annotations", []) if not entry.get("was_cancelled")]
    if not done:
        return None
    newest = max(done, key=lambda entry: str(entry.get("updated_at", "")))
    masks: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(size_hw, np.uint8))
    class_ids: dict[str, int] = {}
    for region in newest["result"]:
        key = _instance_key(region)
        class_ids[key] = _class_id(region, class_names, task)
        scale = np.array(size_hw[::-1]) / 100
        corners = np.rint(np.array(region["value"]["points"], np.float64) * scale - 0.5).astype(np.int32)
        cv2.fillPoly(masks[key], [corners], 1)
    stacked = np.array([masks[key] for key in class_ids], bool).reshape(-1, *size_hw)
    return Instances.from_masks(stacked, list(class_ids.values()))


def _regions(mask: np.ndarray, class_name: str, number: int) -> list[dict[str, Any]]:
    height, width = mask.shape
    scale = np.array([100 / width, 100 / height])
    return [
        {
            "id": f"{number}-{part}",
            "type": "polygonlabels",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "original_width": width,
            "original_height": height,
            "meta": {"text": [f"object {number}"]},
            "value": {"points": ((polygon + 0.5) * scale).round(4).tolist(), "polygonlabels": [class_name]},
        }
        for part, polygon in enumerate(polygons_of(mask))
    ]


def _instance_key(region: Mapping[str, Any]) -> str:
    """Regions with one note are parts of one object; a region that a person drew is an object of its own."""
    notes = region.get("meta", {}).get("text", [])
    return str(notes[0]) if notes else f"region {region['id']}"


def _class_id(region: Mapping[str, Any], class_names: Sequence[str], task: Mapping[str, Any]) -> int:
    name = task.get("data", {}).get("name", "?")
    if region.get("type") != "polygonlabels":
        raise UserError(f"the annotation of {name} has a {region.get('type')!r} region; draw polygons only")
    (label,) = region["value"]["polygonlabels"]
    if label not in class_names:
        raise UserError(f"the annotation of {name} has the class {label!r}; the run has {', '.join(class_names)}")
    return list(class_names).index(label)
