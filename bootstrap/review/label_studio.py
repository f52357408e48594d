"""Label Studio's JSON: samples as tasks with their labels to start from, and corrected annotations back as instances.

An instance is one polygon per connected part, at the borders of its pixels. The parts carry the instance's number in
their ids, which Label Studio keeps; a region that was drawn or duplicated has an id of Label Studio's, and is an object
of its own.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from bootstrap.review.outlines import filled, outline_of, parts_of
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample

logger = logging.getLogger(__name__)

FROM_NAME, TO_NAME = "label", "image"

_OURS = re.compile(r"(\d{1,6})-(\d{1,6})")  # the id of a region that `to_task` wrote: instance, part
_OUR_NOTE = re.compile(r"object \d+")
_MOST_PERCENT = 10_000  # a point further outside the image is a mistake
_SAME = 1e-3  # percent of a side: what Label Studio may round
_NO_SHAPES = ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "ranker")


def labelling_config(class_names: Sequence[str]) -> str:
    """The XML that a Label Studio project needs for these tasks."""
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in class_names)
    regions = f'<PolygonLabels name="{FROM_NAME}" toName="{TO_NAME}">{labels}</PolygonLabels>'
    return f'<View><Header value="$why"/><Image name="{TO_NAME}" value="$image"/>{regions}</View>'


def local_url(folder: str, name: str) -> str:
    """Where Label Studio finds an image file in a folder of its document root."""
    return f"/data/local-files/?d={quote(folder)}/{quote(name)}"


def data_uri(image: Path) -> str:
    """A PNG inside a task."""
    return f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode('ascii')}"


def to_task(sample: Sample, class_names: Sequence[str], image: str) -> dict[str, Any]:
    """One task: where its image is, why it is doubtful, and its labels as a prediction to start from."""
    instances = sample.instances
    regions = [
        region
        for number, (mask, class_id) in enumerate(zip(instances.masks, instances.class_ids, strict=True))
        for region in _regions(mask, class_names[class_id], number)
    ]
    why = f"{sample.reason or sample.outcome}: {sample.prompt.text}"
    return {
        "data": {"image": image, "name": sample.name, "why": why},
        "predictions": [{"model_version": sample.labeler, "result": regions}],
    }


def newest_annotation(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A task's newest annotation; None where nobody has annotated it, or all have skipped it."""
    annotations = task.get("annotations")
    if annotations is None:
        return None
    if not isinstance(annotations, list):
        raise UserError(f"{_shown(task)} has annotations that are no list; export it from Label Studio again")
    done = [entry for entry in annotations if isinstance(entry, Mapping) and not entry.get("was_cancelled")]
    return max(done, key=lambda entry: str(entry.get("updated_at") or ""), default=None)


def from_annotation(
    annotation: Mapping[str, Any], task: Mapping[str, Any], class_names: Sequence[str], before: Instances
) -> Instances:
    """The instances of an annotation.

    Args:
        annotation: of Label Studio's JSON export.
        task: which it belongs to, for messages.
        class_names: what the class ids index.
        before: the labels that the task came with; a region that nobody has touched is exactly its part of these.

    Raises:
        UserError: a region is no polygon of one known label; the message names the task.
    """
    result = annotation.get("result")
    if result is not None and not isinstance(result, list):
        raise UserError(f"{_shown(task)} has a result that is no list of regions; export it from Label Studio again")
    masks: dict[tuple[str, int], np.ndarray] = {}
    for number, region in enumerate(result or ()):
        if _is_shape(region, task):
            class_id = _class_id(region, class_names, task)
            key = (_instance_key(region, number), class_id)
            masks[key] = masks.get(key, False) | _mask(region, class_id, task, before)
    stacked = np.array(list(masks.values()), bool).reshape(-1, *before.size_hw)
    return Instances.from_masks(stacked, [class_id for _, class_id in masks])


def _regions(mask: np.ndarray, class_name: str, number: int) -> list[dict[str, Any]]:
    height, width = mask.shape
    return [
        {
            "id": f"{number}-{part}",
            "type": "polygonlabels",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "meta": {"text": [f"object {number}"]},
            "value": {"points": _percents(component).tolist(), "closed": True, "polygonlabels": [class_name]},
        }
        for part, component in enumerate(parts_of(mask))
    ]


def _percents(component: np.ndarray) -> np.ndarray:
    """The outline of a connected mask, in percent of the image's sides."""
    height, width = component.shape
    return (outline_of(component) * np.array([100 / width, 100 / height])).round(4)


def _is_shape(region: Any, task: Mapping[str, Any]) -> bool:
    """Whether a result is a polygon, and no arrow between two or an answer to a question."""
    kind = region.get("type") if isinstance(region, Mapping) else None
    if kind == "polygonlabels":
        return True
    if kind == "relation" or kind in _NO_SHAPES:
        logger.warning("%s has an entry of the type %r, which is no region; it is left out", _shown(task), kind)
        return False
    raise UserError(f"{_shown(task)} has a region of the type {kind!r}; draw polygons only")


def _mask(region: Mapping[str, Any], class_id: int, task: Mapping[str, Any], before: Instances) -> np.ndarray:
    """The pixels of a polygon: as they were where it is one of ours that nobody has touched."""
    points = _points(region, task)
    if ours := _OURS.fullmatch(str(region.get("id"))):
        number, part = map(int, ours.groups())
        components = parts_of(before.masks[number]) if number < len(before) else []
        if part < len(components):
            same = _percents(components[part])
            if same.shape == points.shape and np.abs(same - points).max() <= _SAME:
                return components[part]
    height, width = before.size_hw
    mask = filled(points * np.array([width / 100, height / 100]), before.size_hw)
    if not mask.any():
        raise UserError(f"{_shown(task)} has a polygon that covers no pixel of the image; remove it or draw it again")
    return mask


def _points(region: Mapping[str, Any], task: Mapping[str, Any]) -> np.ndarray:
    """Corners in percent, float64 [k, 2]."""
    value = region.get("value")
    points = value.get("points") if isinstance(value, Mapping) else None
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise UserError(f"{_shown(task)} has a polygon whose points are not all pairs of numbers; draw it again")
    if len(points) < 3:
        raise UserError(f"{_shown(task)} has a polygon of {len(points)} points; remove it or draw it again")
    if region.get("image_rotation"):
        raise UserError(f"{_shown(task)} was drawn on a rotated image; turn it back and draw it again")
    return np.array(points, np.float64)


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in point)
        and all(abs(number) <= _MOST_PERCENT for number in point)  # not so for NaN
    )


def _instance_key(region: Mapping[str, Any], number: int) -> str:
    """What regions of one instance share: the number that `to_task` gave them, or a note of the person's own."""
    if ours := _OURS.fullmatch(str(region.get("id"))):
        return f"instance {ours[1]}"
    meta = region.get("meta")
    notes = meta.get("text") if isinstance(meta, Mapping) else None
    note = str(notes[0] if isinstance(notes, list) and notes else notes or "").strip()
    return f"note {note}" if note and not _OUR_NOTE.fullmatch(note) else f"region {number}"


def _class_id(region: Mapping[str, Any], class_names: Sequence[str], task: Mapping[str, Any]) -> int:
    value = region.get("value")
    labels = value.get("polygonlabels") if isinstance(value, Mapping) else None
    if labels is None or labels == []:
        raise UserError(f"{_shown(task)} has a polygon without a label; give it one")
    if not isinstance(labels, list) or len(labels) > 1:
        raise UserError(f"{_shown(task)} has a polygon with the labels {labels}; give it one")
    if labels[0] not in class_names:
        raise UserError(f"{_shown(task)} has the class {labels[0]!r}; the run has {', '.join(class_names)}")
    return list(class_names).index(labels[0])


def name_of(task: Mapping[str, Any]) -> str:
    """The sample that a task is about: its name, or that of its image's file; empty if neither is given."""
    data = task.get("data")
    name, image = (data.get(key) if isinstance(data, Mapping) else None for key in ("name", "image"))
    if isinstance(name, str) and name:
        return name
    return Path(image).stem if isinstance(image, str) and not image.startswith("data:") else ""


def _shown(task: Mapping[str, Any]) -> str:
    return f"the annotation of {name_of(task) or 'a task without a name'} (task {task.get('id', '?')})"
