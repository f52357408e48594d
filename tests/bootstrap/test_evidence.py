"""What counts as found on a photo, and the threshold that follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bootstrap.evidence import (
    DEFAULT_THRESHOLD,
    Evidence,
    NegativeFinding,
    PhotoFinding,
    f1_curve,
    f1_score,
    judge_photo,
    suggest_threshold,
    without_others,
)
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from diffugen.instances import Instances


def block(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(boxes), 40, 40), bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


OUTLINE = Instances.from_masks(block((10, 10, 30, 30)), [0])


def test_a_detection_counts_where_the_outline_is() -> None:
    found = Instances.from_masks(block((0, 0, 8, 8), (10, 10, 28, 30), (10, 10, 30, 30)), [0, 0, 1], [0.9, 0.6, 0.95])
    judged = judge_photo(found, OUTLINE, rare_ids=[0])
    assert judged == {
        "score": pytest.approx(0.6),
        "iou": pytest.approx(0.9),
        "false_score": pytest.approx(0.9),
    }


@pytest.mark.parametrize(
    ("masks", "class_ids"), [(block(), []), (block((0, 0, 8, 8)), [0]), (block((10, 10, 30, 30)), [1])]
)
def test_nothing_elsewhere_and_other_classes_are_not_the_object(masks: np.ndarray, class_ids: list[int]) -> None:
    judged = judge_photo(Instances.from_masks(masks, class_ids), OUTLINE, rare_ids=[0])
    assert judged["score"] == 0 and judged["iou"] is None


def test_detections_of_a_photos_other_objects_are_left_aside() -> None:
    other = (0, 0, 8, 8)
    given = Instances.from_masks(block((10, 10, 30, 30), other), [0, 0])
    found = Instances.from_masks(block(other, (10, 10, 28, 30), (32, 32, 38, 38)), [0, 0, 0], [0.9, 0.6, 0.3])
    assert without_others(found, given, OUTLINE).scores.tolist() == pytest.approx([0.6, 0.3])
    assert without_others(found, given.subset([0]), OUTLINE).scores.tolist() == pytest.approx([0.9, 0.6, 0.3])


def test_without_an_outline_any_detection_of_the_object_counts() -> None:
    found = Instances.from_masks(block((0, 0, 8, 8)), [0], [0.5])
    assert judge_photo(found, Instances.empty((40, 40)), [0]) == {"score": 0.5, "iou": None, "false_score": 0.0}


def test_the_threshold_separates_what_should_be_found_from_what_should_not() -> None:
    assert suggest_threshold([0.8, 0.9], [0.3, 0.0]) == pytest.approx(0.55)
    assert suggest_threshold([0.0, 0.0], [0.9]) == DEFAULT_THRESHOLD
    assert suggest_threshold([0.02], []) == 0.1  # a single faint detection is no evidence for less
    high = suggest_threshold([0.5, 0.9, 0.95], [0.6, 0.6, 0.6, 0.6])
    assert 0.6 < high < 0.9 and f1_score([0.5, 0.9, 0.95], [0.6] * 4, high) == pytest.approx(0.8)


def test_the_curve_falls_in_recall() -> None:
    recalls = [recall for _, _, recall, _ in f1_curve([0.2, 0.5, 0.8], [0.1])]
    assert recalls[0] == 1 and recalls[-1] == 0 and recalls == sorted(recalls, reverse=True)


def photo(score: float, iou: float | None = None) -> PhotoFinding:
    return PhotoFinding("a.png", "piano", score, iou, 0.0, "checkpoint", "photos/a.png")


def test_only_photos_whose_objects_are_all_labelled_tell_what_is_found_elsewhere() -> None:
    """On others it may be a second object."""
    elsewhere = [replace(photo(0.8, 0.7), false_score=0.9, agreement=agreement) for agreement in (None, 0.5)]
    assert "photos/found_elsewhere" not in Evidence((elsewhere[0],)).measures()
    assert Evidence(tuple(elsewhere)).measures()["photos/found_elsewhere"] == 1.0


def test_measures_and_the_file_say_the_same(tmp_path: Path) -> None:
    evidence = Evidence((photo(0.8, 0.7), photo(0.0)), (NegativeFinding("b", 0.0, "generated"),))
    assert evidence.measures() == {
        "photos/num": 2,
        "photos/found": 0.5,
        "photos/score": 0.4,
        "photos/threshold": 0.4,
        "photos/judged_threshold": 0.4,
        "photos/mask_iou": 0.7,
        "photos/num_compared": 1,
        "negatives/generated/num": 1,
        "negatives/generated/false_positives": 0.0,
    }
    evidence.write(tmp_path / "evidence.json")
    assert Evidence.read(tmp_path / "evidence.json") == evidence
    assert Evidence.read(tmp_path / "none.json").measures() == {}


def test_what_the_trained_detector_finds_is_told_beside_it() -> None:
    missed, unfolded = replace(photo(0.0), judge="fold 0", trained_score=0.8), photo(0.6)
    measures = Evidence((missed, unfolded, replace(missed, trained_score=0.0))).measures()
    assert measures["photos/found"] == pytest.approx(1 / 3)
    assert measures["photos/found_by_trained"] == pytest.approx(2 / 3)


def test_the_threshold_is_midway_between_the_judges_and_the_detector_that_you_get() -> None:
    found = replace(photo(0.4), judge="fold 0", trained_score=0.8)
    wrong = NegativeFinding("b", 0.2, "generated", trained_score=0.0)
    assert Evidence((found,), (wrong,)).threshold == pytest.approx(0.35)  # between 0.6 and 0.1
    assert Evidence((photo(0.4),), (replace(wrong, trained_score=None),)).threshold == pytest.approx(0.3)


def test_what_weaker_judges_find_counts_at_a_threshold_that_suits_them() -> None:
    photos = tuple(replace(photo(0.3), judge="fold 0", trained_score=0.95) for _ in range(6))
    nothing = tuple(NegativeFinding("b", 0.0, "generated", trained_score=0.0) for _ in range(20))
    own = NegativeFinding("c", 0.2, "photo")  # judged by the checkpoint, so at its threshold
    evidence = Evidence(photos, (*nothing, own))
    assert evidence.judged_threshold < 0.3 < evidence.threshold
    measures = evidence.measures()
    assert measures["photos/found"] == measures["photos/found_by_trained"] == 1.0
    assert measures["photos/threshold"] == evidence.threshold and measures["negatives/photo/false_positives"] == 0.0


def test_all_that_a_finding_may_hold_is_read_back(tmp_path: Path) -> None:
    labels = OUTLINE.to_json()
    photo = PhotoFinding("a.png", "piano", 1, 0.5, 0.0, "fold 0", "photos/a.png", labels, labels, 0.25, 0.75)
    for one in (photo, replace(photo, iou=None, agreement=None, trained_score=None, found={})):
        evidence = Evidence((one,), (NegativeFinding("b", 0.5, "photo"),))
        evidence.write(tmp_path / "evidence.json")
        assert Evidence.read(tmp_path / "evidence.json") == evidence


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({"image": "../../secret.png"}, "no file in"),
        ({"image": "/secret.png"}, "no file in"),
        ({"score": "high"}, "score is 'high'"),
        ({"found": {"size_hw": [4, 4]}}, "masks"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_evidence_that_is_damaged_or_a_strangers_is_named(tmp_path: Path, change: dict[str, Any], trouble: str) -> None:
    path = tmp_path / "round_00" / "evidence.json"
    Evidence((PhotoFinding("a.png", "piano", 0.5, None, 0.0, "checkpoint", "photos/a.png"),), ()).write(path)
    values = read_json(path)
    values["photos"][0] |= change
    write_json(path, values)
    with pytest.raises(UserError, match=rf"evidence\.json is damaged \(.*{trouble}"):
        Evidence.read(path)
