"""Label Studio's JSON: what goes out comes back, whatever a person has done to it in between."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from round_samples import CLASSES, SIZE_HW

from bootstrap.review.label_studio import (
    data_uri,
    from_annotation,
    labelling_config,
    local_url,
    name_of,
    newest_annotation,
    to_task,
)
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample


@pytest.fixture
def sample(tmp_path: Path, make_samples: Callable) -> Sample:
    """A piano in two parts, one with a hole, and a round car."""
    masks = np.zeros((2, *SIZE_HW), bool)
    masks[0, 5:20, 3:17] = masks[0, 30:44, 8:30] = True
    masks[0, 34:40, 12:20] = False
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    masks[1] = np.hypot(x - 48, y - 20) < 13
    encoded = Instances.from_masks(masks, [0, 1], [0.6, 0.9]).to_json()
    return replace(make_samples(tmp_path, [[0, 1]], {0: "low_iou:piano"})[0], encoded=encoded)


@pytest.fixture
def task(sample: Sample) -> dict[str, Any]:
    return to_task(sample, CLASSES, "image.png")


def annotated(task: dict[str, Any], **entry: Any) -> dict[str, Any]:
    """The task as an export has it after somebody accepted the prediction; the regions can be changed."""
    result = task["predictions"][0]["result"]
    return json.loads(json.dumps(task | {"annotations": [{"result": result, "updated_at": "2026-01-01"} | entry]}))


def read(task: dict[str, Any], sample: Sample) -> Instances:
    annotation = newest_annotation(task)
    assert annotation is not None
    return from_annotation(annotation, task, CLASSES, sample.instances)


def regions_of(task: dict[str, Any]) -> list[dict[str, Any]]:
    return task["annotations"][0]["result"]


def drawn(points: list[list[float]], label: str = "piano", **more: Any) -> dict[str, Any]:
    """A region that a person drew; points in percent."""
    return {"id": "x1", "type": "polygonlabels", "value": {"points": points, "polygonlabels": [label]}} | more


def test_an_accepted_prediction_comes_back_as_it_was(sample: Sample, task: dict[str, Any]) -> None:
    """To the pixel, though its outlines have few corners: nobody has touched them."""
    back = read(annotated(task), sample)
    np.testing.assert_array_equal(back.masks, sample.instances.masks)
    assert back.class_ids.tolist() == [0, 1]


def test_an_edited_part_changes_and_the_others_stay(sample: Sample, task: dict[str, Any]) -> None:
    edited = annotated(task)
    points = next(r for r in regions_of(edited) if len(r["value"]["points"]) > 6 and r["id"].startswith("0-"))
    points["value"]["points"] = [[x + 3.125, y] for x, y in points["value"]["points"]]  # two pixels to the right
    back = read(edited, sample)
    before = sample.instances.masks
    np.testing.assert_array_equal(back.masks[1], before[1])
    np.testing.assert_array_equal(back.masks[0, :25], before[0, :25])
    np.testing.assert_array_equal(back.masks[0, 25:, 2:], before[0, 25:, :-2])  # the hole is still there


def test_points_are_at_the_borders_of_pixels(sample: Sample, task: dict[str, Any]) -> None:
    height, width = SIZE_HW
    points = np.array(task["predictions"][0]["result"][0]["value"]["points"]) * [width / 100, height / 100]
    np.testing.assert_allclose(points, points.round(), atol=1e-3)
    assert {tuple(corner) for corner in points.round().astype(int)} == {(3, 5), (17, 5), (17, 20), (3, 20)}
    corners = [[25.0, 25.0], [75.0, 25.0], [75.0, 75.0], [25.0, 75.0]]
    back = read(annotated(task, result=[drawn(corners)]), sample)
    expected = np.zeros(SIZE_HW, bool)
    expected[12:36, 16:48] = True
    np.testing.assert_array_equal(back.masks[0], expected)


def test_a_task_says_why(task: dict[str, Any]) -> None:
    assert task["data"]["why"].startswith("low_iou:piano")
    assert [region["value"]["polygonlabels"] for region in task["predictions"][0]["result"]] == [["piano"]] * 2 + [
        ["car"]
    ]


def test_images_have_our_names_or_are_in_the_task(sample: Sample) -> None:
    assert local_url("my tasks_images", "r00_000000.png") == "/data/local-files/?d=my%20tasks_images/r00_000000.png"
    assert data_uri(sample.image_path).startswith("data:image/png;base64,iVBOR")


def test_a_drawn_object_is_added_and_a_removed_one_is_gone(sample: Sample, task: dict[str, Any]) -> None:
    done = annotated(task)
    regions_of(done)[2:] = [drawn([[75, 25], [95, 25], [95, 75], [75, 75]])]
    back = read(done, sample)
    assert back.class_ids.tolist() == [0, 0]
    np.testing.assert_allclose(back.xyxy[1], [48, 12, 61, 36], atol=1)


def test_a_duplicated_region_is_an_object_of_its_own(sample: Sample, task: dict[str, Any]) -> None:
    """Label Studio copies the note, but not the id."""
    done = annotated(task)
    twin = copy.deepcopy(regions_of(done)[0]) | {"id": "xK3fT9"}
    twin["value"]["points"] = [[x + 40, y] for x, y in twin["value"]["points"]]
    regions_of(done).append(twin)
    assert read(done, sample).class_ids.tolist() == [0, 1, 0]


def test_regions_with_a_note_of_the_persons_own_are_one_object(sample: Sample, task: dict[str, Any]) -> None:
    left, right = ([[x, 10], [x + 10, 10], [x + 10, 30], [x, 30]] for x in (5, 60))
    parts = [drawn(left, meta={"text": ["broken"]}), drawn(right, id="x2", meta={"text": "broken"})]
    assert len(read(annotated(task, result=parts), sample)) == 1
    assert len(read(annotated(task, result=[parts[0], drawn(right, id="x2", meta={"text": [""]})]), sample)) == 2


def test_a_part_with_another_label_is_another_object(sample: Sample, task: dict[str, Any]) -> None:
    done = annotated(task)
    regions_of(done)[1]["value"]["polygonlabels"] = ["car"]
    assert read(done, sample).class_ids.tolist() == [0, 1, 1]


def test_nothing_is_left_where_a_person_removed_everything(sample: Sample, task: dict[str, Any]) -> None:
    for empty in ([], None):
        back = read(annotated(task, result=empty), sample)
        assert len(back) == 0 and back.size_hw == SIZE_HW


@pytest.mark.parametrize("annotations", [None, [], [None], [{"result": [], "was_cancelled": True}]])
def test_a_skipped_or_untouched_task_says_nothing(task: dict[str, Any], annotations: Any) -> None:
    assert newest_annotation(task | {"annotations": annotations}) is None
    assert newest_annotation(task) is None


def test_the_newest_annotation_counts(sample: Sample, task: dict[str, Any]) -> None:
    done = annotated(task)
    done["annotations"] += [{"result": [], "updated_at": "2025-12-31"}, {"result": [], "updated_at": None}]
    assert len(read(done, sample)) == 2


@pytest.mark.parametrize("extra", [{"type": "relation", "from_id": "0-0", "to_id": "1-0"}, {"type": "choices"}])
def test_arrows_and_answers_are_no_regions(
    sample: Sample, task: dict[str, Any], extra: dict, caplog: pytest.LogCaptureFixture
) -> None:
    done = annotated(task)
    regions_of(done).append(extra)
    with caplog.at_level(logging.WARNING):
        assert len(read(done, sample)) == 2
    assert f"{extra['type']!r}, which is no region" in caplog.text


SQUARE = [[10, 10], [50, 10], [50, 50], [10, 50]]


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        (drawn(SQUARE, type="brushlabels"), "the type 'brushlabels'; draw polygons only"),
        (drawn(SQUARE, type=None), "the type None"),
        (None, "the type None"),
        (drawn(SQUARE, "harp"), "the class 'harp'; the run has piano, car"),
        (drawn(SQUARE, value={"points": SQUARE, "polygonlabels": []}), "without a label"),
        (drawn(SQUARE, value={"points": SQUARE}), "without a label"),
        (drawn(SQUARE, value={"points": SQUARE, "polygonlabels": ["car", "piano"]}), r"the labels \['car', 'piano'\]"),
        (drawn(SQUARE, value={"points": SQUARE, "polygonlabels": [["car"]]}), "the class"),
        (drawn(SQUARE, value=None), "without a label"),
        (drawn([]), "a polygon of 0 points"),
        (drawn(SQUARE[:2]), "a polygon of 2 points"),
        (drawn([[1, 2], [3], [4, 5]]), "not all pairs of numbers"),
        (drawn([[1, 2], [3, None], [4, 5]]), "not all pairs of numbers"),
        (drawn([[1, 2], [3, float("nan")], [4, 5]]), "not all pairs of numbers"),
        (drawn([[1, 2], [3, 1e300], [4, 5]]), "not all pairs of numbers"),
        (drawn([[1, 1], [2, 1], [3, 1]]), "covers no pixel"),
        (drawn(SQUARE, image_rotation=90), "a rotated image"),
    ],
)
def test_what_cannot_be_read_is_named(sample: Sample, task: dict[str, Any], region: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"annotation of r00_000000 \(task 7\) .*{sentence}"):
        read(annotated(task | {"id": 7}, result=[region]), sample)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"name": "r00_1", "image": "/data/local-files/?d=tasks_images/r00_2.png"}, "r00_1"),
        ({"name": None, "image": "/data/local-files/?d=tasks_images/r00_2.png"}, "r00_2"),
        ({"image": "data:image/png;base64,abc/def"}, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_which_sample_a_task_is_about(data: Any, name: str) -> None:
    assert name_of({"data": data}) == name


def test_the_labelling_config_is_xml_with_every_class() -> None:
    root = ElementTree.fromstring(labelling_config(["grand <piano>", 'a "car"']))
    assert [label.get("value") for label in root.iter("Label")] == ["grand <piano>", 'a "car"']
