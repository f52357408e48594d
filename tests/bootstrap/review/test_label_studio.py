"""Label Studio's JSON: what goes out comes back, whatever a person has done to it in between."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from round_samples import CLASSES, SIZE_HW

from bootstrap.review.label_studio import from_task, labelling_config, to_task
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample


@pytest.fixture
def sample(tmp_path: Path, make_samples: Callable) -> Sample:
    """A piano in two parts and a car."""
    masks = np.zeros((2, *SIZE_HW), bool)
    masks[0, 5:20, 3:17] = masks[0, 30:44, 8:30] = masks[1, 10:40, 40:61] = True
    encoded = Instances.from_masks(masks, [0, 1], [0.6, 0.9]).to_json()
    return replace(make_samples(tmp_path, [[0, 1]], {0: "low_iou:piano"})[0], encoded=encoded)


def annotated(task: dict[str, Any], **entry: Any) -> dict[str, Any]:
    """The task as an export has it after somebody accepted the prediction."""
    result = task["predictions"][0]["result"]
    return json.loads(json.dumps(task | {"annotations": [{"result": result, "updated_at": "2026-01-01"} | entry]}))


def test_an_accepted_prediction_comes_back_as_it_was(sample: Sample) -> None:
    back = from_task(annotated(to_task(sample, CLASSES)), CLASSES, SIZE_HW)
    assert back is not None
    np.testing.assert_array_equal(back.masks, sample.instances.masks)
    assert back.class_ids.tolist() == [0, 1]


def test_a_task_shows_the_image_and_says_why(sample: Sample) -> None:
    task = to_task(sample, CLASSES)
    header, _, content = task["data"]["image"].partition(",")
    assert header == "data:image/png;base64"
    assert base64.b64decode(content) == sample.image_path.read_bytes()
    assert task["data"]["why"].startswith("low_iou:piano")
    assert [region["value"]["polygonlabels"] for region in task["predictions"][0]["result"]] == [["piano"]] * 2 + [
        ["car"]
    ]


def test_a_drawn_object_is_added_and_a_removed_one_is_gone(sample: Sample) -> None:
    task = annotated(to_task(sample, CLASSES))
    corners = [[75, 25], [95, 25], [95, 75], [75, 75]]
    drawn = {"id": "x1", "type": "polygonlabels", "value": {"points": corners, "polygonlabels": ["piano"]}}
    task["annotations"][0]["result"] = [*task["annotations"][0]["result"][:2], drawn]
    back = from_task(task, CLASSES, SIZE_HW)
    assert back is not None and back.class_ids.tolist() == [0, 0]
    np.testing.assert_allclose(back.xyxy[1], [48, 12, 61, 36], atol=1)


def test_nothing_is_left_where_a_person_removed_everything(sample: Sample) -> None:
    back = from_task(annotated(to_task(sample, CLASSES), result=[]), CLASSES, SIZE_HW)
    assert back is not None and len(back) == 0 and back.size_hw == SIZE_HW


def test_a_skipped_or_untouched_task_says_nothing(sample: Sample) -> None:
    task = to_task(sample, CLASSES)
    assert from_task(task, CLASSES, SIZE_HW) is None
    assert from_task(annotated(task, was_cancelled=True), CLASSES, SIZE_HW) is None


def test_the_newest_annotation_counts(sample: Sample) -> None:
    task = annotated(to_task(sample, CLASSES))
    task["annotations"].append({"result": [], "updated_at": "2025-12-31"})
    back = from_task(task, CLASSES, SIZE_HW)
    assert back is not None and len(back) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"type": "brushlabels"}, "draw polygons only"), ({"value": {"points": [], "polygonlabels": ["harp"]}}, "'harp'")],
)
def test_what_cannot_be_read_is_named(sample: Sample, change: dict, sentence: str) -> None:
    task = annotated(to_task(sample, CLASSES))
    task["annotations"][0]["result"][0] |= change
    with pytest.raises(UserError, match=rf"annotation of r00_000000 .*{sentence}"):
        from_task(task, CLASSES, SIZE_HW)


def test_the_labelling_config_is_xml_with_every_class() -> None:
    root = ElementTree.fromstring(labelling_config(["grand <piano>", 'a "car"']))
    assert [label.get("value") for label in root.iter("Label")] == ["grand <piano>", 'a "car"']
