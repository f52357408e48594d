"""The filter: every way in which labels, prompt and labelers can disagree, and the reason it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bootstrap.config import FilterConfig
from bootstrap.disagreement import NOTHING_FOUND, adapted_min_ious, expected_counts, judge_by_agreement, judge_by_score
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt

CLASSES = ("piano", "car")
SIZE_HW = (40, 64)
RULES = FilterConfig(min_score=0.3, min_iou=0.5)

LEFT, RIGHT = (0, 20), (30, 50)
SHIFTED = (3, 23)  # IoU with LEFT: 17 / 23
ASIDE = (15, 35)  # IoU with LEFT: 5 / 35


def labels(*objects: tuple[str, tuple[int, int], float]) -> Instances:
    """Instances from (class, columns, score): bars of the image's height."""
    masks = np.zeros((len(objects), *SIZE_HW), bool)
    for mask, (_, (start, stop), _) in zip(masks, objects, strict=True):
        mask[:, start:stop] = True
    return Instances.from_masks(masks, [CLASSES.index(o[0]) for o in objects], [o[2] for o in objects])


def by(attention: Instances, detector: Instances, **others: Instances) -> dict[str, Instances]:
    """Labels by labeler."""
    return {"attention": attention, "detector": detector, **others}


def prompt_for(*names: str) -> Prompt:
    return Prompt("a photo", tuple(ObjectPhrase(name, name) for name in names))


def test_expected_counts_come_from_the_prompt_and_name_every_class() -> None:
    assert expected_counts(prompt_for("car", "car"), CLASSES) == {"piano": 0, "car": 2}


@pytest.mark.parametrize(
    ("asked", "found", "reason"),
    [
        (["piano"], [("piano", LEFT, 0.9)], ""),
        (["piano", "car"], [("car", RIGHT, 0.4), ("piano", LEFT, 0.9)], ""),
        (["car", "car"], [("car", RIGHT, 0.4), ("car", LEFT, 0.9)], ""),
        ([], [], ""),
        (
            ["piano"],
            [("piano", LEFT, 0.9), ("piano", RIGHT, 0.1)],
            "",
        ),  # noise beside the object does not count
        (["piano"], [], "too_few:piano"),
        (["piano"], [("piano", LEFT, 0.1)], "low_score:piano"),
        (["piano"], [("piano", LEFT, 0.9), ("piano", RIGHT, 0.9)], "too_many:piano"),
        (["piano", "car"], [("piano", LEFT, 0.9)], "too_few:car"),
        (["car"], [("piano", LEFT, 0.9), ("car", RIGHT, 0.9)], "too_many:piano"),
    ],
)
def test_round_0_keeps_what_the_prompt_asked_for(asked: Sequence[str], found: list, reason: str) -> None:
    judgement = judge_by_score(prompt_for(*asked), labels(*found), CLASSES, RULES)
    assert judgement.reason == reason
    assert judgement.kept == (not reason)
    assert judgement.agreement is None
    assert (judgement.instances.scores >= RULES.min_score).all()


@pytest.mark.parametrize(
    ("asked", "attention", "detector", "reason", "agreement"),
    [
        (["piano"], [("piano", LEFT, 0.9)], [("piano", LEFT, 0.5)], "", 1.0),
        (["piano"], [("piano", LEFT, 0.9)], [("piano", SHIFTED, 0.5)], "", 17 / 23),
        (["piano"], [("piano", LEFT, 0.9)], [("piano", ASIDE, 0.5)], "low_iou:piano", 5 / 35),
        (["piano"], [("piano", LEFT, 0.9)], [("piano", RIGHT, 0.5)], "low_iou:piano", 0.0),
        (["piano"], [("piano", LEFT, 0.9)], [], "detector_too_few:piano", 0.0),
        (["piano"], [("piano", LEFT, 0.9)], [("piano", LEFT, 0.1)], "detector_too_few:piano", 0.0),
        (["piano"], [], [("piano", LEFT, 0.5)], "attention_too_few:piano", 0.0),
        (["piano"], [("piano", LEFT, 0.9)], [("car", LEFT, 0.5)], "detector_too_few:piano", 0.0),
        (
            ["piano"],
            [("piano", LEFT, 0.9)],
            [("piano", LEFT, 0.5), ("piano", RIGHT, 0.5)],
            "detector_too_many:piano",
            0.5,
        ),
        (
            ["piano"],
            [("piano", LEFT, 0.9)],
            [("piano", LEFT, 0.5), ("car", RIGHT, 0.5)],
            "detector_too_many:car",
            0.5,
        ),
        (
            ["piano"],
            [("piano", LEFT, 0.9), ("piano", RIGHT, 0.9)],
            [("piano", LEFT, 0.5)],
            "attention_too_many:piano",
            0.5,
        ),
        (
            ["piano", "car"],
            [("piano", LEFT, 0.9), ("car", RIGHT, 0.9)],
            [("car", RIGHT, 0.5), ("piano", SHIFTED, 0.5)],
            "",
            (1 + 17 / 23) / 2,
        ),
    ],
)
def test_later_rounds_keep_where_both_labelers_agree(
    asked: Sequence[str], attention: list, detector: list, reason: str, agreement: float
) -> None:
    judgement = judge_by_agreement(prompt_for(*asked), by(labels(*attention), labels(*detector)), CLASSES, RULES)
    assert judgement.reason == reason
    assert judgement.outcome == ("reject" if reason else "keep")
    assert judgement.agreement == pytest.approx(agreement)


def test_the_labels_kept_are_the_detectors() -> None:
    detector = labels(("piano", SHIFTED, 0.5))
    judgement = judge_by_agreement(prompt_for("piano"), by(labels(("piano", LEFT, 0.9)), detector), CLASSES, RULES)
    np.testing.assert_array_equal(judgement.instances.masks, detector.masks)
    np.testing.assert_array_equal(judgement.instances.scores, detector.scores)


@pytest.mark.parametrize("names", [[], ["car"]])
def test_an_image_without_the_rare_object_is_kept_only_if_neither_finds_one(names: list[str]) -> None:
    cars = [("car", RIGHT, 0.9) for _ in names]
    clean = judge_by_agreement(prompt_for(*names), by(labels(*cars), labels(*cars)), CLASSES, RULES)
    assert clean.kept and len(clean.instances) == len(names)
    seen = labels(*cars, ("piano", LEFT, 0.5))
    by_detector = judge_by_agreement(prompt_for(*names), by(labels(*cars), seen), CLASSES, RULES)
    assert by_detector.reason == "detector_too_many:piano"
    by_attention = judge_by_agreement(prompt_for(*names), by(seen, labels(*cars)), CLASSES, RULES)
    assert by_attention.reason == "attention_too_many:piano"


def test_nothing_found_where_nothing_was_asked_for_is_no_agreement_to_measure() -> None:
    judgement = judge_by_agreement(prompt_for(), by(labels(), labels()), CLASSES, RULES)
    assert judgement.kept
    assert judgement.agreement is None


@pytest.mark.parametrize("found", [[], [("piano", SHIFTED, 0.8)], [("piano", LEFT, 0.26), ("car", RIGHT, 0.3)]])
def test_stricter_thresholds_never_keep_more(found: list) -> None:
    attention = labels(("piano", LEFT, 0.9))
    kept = [
        judge_by_agreement(
            prompt_for("piano"), by(attention, labels(*found)), CLASSES, FilterConfig(min_iou=min_iou)
        ).kept
        for min_iou in (0.1, 0.5, 0.7, 0.75, 1.0)
    ]
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(
    ("detector", "flipped", "previous", "outcome", "reason"),
    [
        (LEFT, LEFT, LEFT, "keep", ""),
        (LEFT, ASIDE, LEFT, "review", "flipped_low_iou:piano"),
        (LEFT, None, LEFT, "review", "flipped_too_few:piano"),
        (ASIDE, ASIDE, ASIDE, "review", "low_iou:piano"),
        (ASIDE, ASIDE, LEFT, "reject", "low_iou:piano"),
        (None, LEFT, LEFT, "review", "detector_too_few:piano"),
        (None, None, LEFT, "reject", "detector_too_few:piano"),
    ],
)
def test_a_few_dissenting_labelers_call_for_review_and_half_of_them_reject(
    detector: Any, flipped: Any, previous: Any, outcome: str, reason: str
) -> None:
    found = [labels(*([("piano", place, 0.9)] if place else [])) for place in (detector, flipped, previous)]
    names = by(labels(("piano", LEFT, 0.9)), found[0], flipped=found[1], previous=found[2])
    judgement = judge_by_agreement(prompt_for("piano"), names, CLASSES, RULES)
    assert (judgement.outcome, judgement.reason) == (outcome, reason)


def test_the_bar_rises_with_the_agreement_of_a_class_and_within_its_limits() -> None:
    rules = FilterConfig(min_iou=0.5)
    seen = {"piano": [0.6, 0.7] * 10, "car": [0.95] * 10, "tent": [0.1] * 12, "boat": [0.7] * 9}
    assert adapted_min_ious(seen, rules) == pytest.approx({"piano": 0.6, "car": 0.8, "tent": 0.5})


def test_an_adapted_bar_is_for_its_class_alone() -> None:
    both = labels(("piano", LEFT, 0.9), ("car", RIGHT, 0.9))
    shifted = labels(("piano", SHIFTED, 0.9), ("car", RIGHT, 0.9))
    for name, reason in (("piano", "low_iou:piano"), ("car", "")):
        judgement = judge_by_agreement(prompt_for("piano", "car"), by(both, shifted), CLASSES, RULES, {name: 0.8})
        assert judgement.reason == reason


@pytest.mark.parametrize(
    ("asked", "sees", "outcome", "reason"),
    [
        (["piano", "car"], [("car", RIGHT, 0.9)], "keep", ""),
        (
            ["piano", "car"],
            [("car", RIGHT, 0.9), ("car", SHIFTED, 0.9)],
            "keep",
            "",
        ),  # the piano, to one who knows none
        (["piano", "car"], [], "review", "mask2former_too_few:car"),
        (["piano", "car"], [("car", ASIDE, 0.9)], "review", "mask2former_low_iou:car"),
        (["piano", "car"], [("car", RIGHT, 0.9), ("car", (52, 60), 0.9)], "review", "mask2former_too_many:car"),
        (["piano"], [], "keep", ""),
        (["piano"], [("car", LEFT, 0.9)], "keep", ""),
        (["piano"], [("car", RIGHT, 0.9)], "review", "mask2former_too_many:car"),
    ],
)
def test_a_labeler_is_asked_about_the_classes_that_it_knows(
    asked: Sequence[str], sees: list, outcome: str, reason: str
) -> None:
    both = labels(*[(name, LEFT if name == "piano" else RIGHT, 0.9) for name in asked])
    found = by(both, both, mask2former=labels(*sees))
    judgement = judge_by_agreement(prompt_for(*asked), found, CLASSES, RULES, known_classes={"mask2former": ["car"]})
    assert (judgement.outcome, judgement.reason) == (outcome, reason)


def test_a_labeler_that_knows_nothing_in_an_image_softens_no_verdict() -> None:
    there, elsewhere = labels(("piano", LEFT, 0.9)), labels(("piano", RIGHT, 0.9))
    found = by(there, there, previous=elsewhere, flipped=elsewhere, mask2former=labels())
    known = {"mask2former": ["car"]}
    assert judge_by_agreement(prompt_for("piano"), found, CLASSES, RULES, known_classes=known).outcome == "reject"
    assert judge_by_agreement(prompt_for("piano"), found | {"mask2former": there}, CLASSES, RULES).outcome == "review"


BOTH = [("car", LEFT, 0.9), ("car", RIGHT, 0.8)]


@pytest.mark.parametrize(
    ("detector", "flipped", "reason", "kept"),
    [
        (BOTH, [("car", RIGHT, 0.9), ("car", SHIFTED, 0.4)], "", 2),
        (BOTH, [("car", LEFT, 0.9)], "", 1),
        (BOTH[:1], [*BOTH[:1], ("piano", RIGHT, 0.9)], "", 1),
        (BOTH[:1], [("car", ASIDE, 0.9)], "flipped_low_iou:car", 0),
        (BOTH[:1], [("piano", LEFT, 0.9)], "flipped_too_few:car", 0),
        (BOTH[:1], [], "flipped_too_few:car", 0),
        ([], BOTH, NOTHING_FOUND, 0),
    ],
)
def test_where_nobody_says_what_a_photo_shows_agreed_objects_count(
    detector: list, flipped: list, reason: str, kept: int
) -> None:
    found = {"detector": labels(*detector), "flipped": labels(*flipped)}
    judgement = judge_by_agreement(Prompt(""), found, CLASSES, RULES)
    assert (judgement.reason, judgement.outcome) == (reason, "reject" if reason else "keep")
    if judgement.kept:
        assert len(judgement.instances) == kept


def test_a_photo_on_which_most_labelers_agree_is_for_review() -> None:
    car, nothing = labels(*BOTH[:1]), labels()
    found = {"detector": car, "flipped": car, "previous": nothing}
    assert judge_by_agreement(Prompt(""), found, CLASSES, RULES).outcome == "review"
    assert judge_by_agreement(Prompt(""), found | {"flipped": nothing}, CLASSES, RULES).outcome == "reject"


def test_a_detector_of_a_fold_says_whether_an_object_is_there_and_not_how_it_is_cut() -> None:
    """The adapted threshold is what the detector and its mirrored view are used to."""
    found = {"detector": labels(("car", LEFT, 0.9)), "flipped": labels(("car", LEFT, 0.9))}
    shifted = labels(("car", SHIFTED, 0.9))
    for name, kept in (("fold0", True), ("mask2former", False)):
        judgement = judge_by_agreement(Prompt(""), found | {name: shifted}, CLASSES, RULES, {"car": 0.8})
        assert judgement.kept == kept
    assert not judge_by_agreement(Prompt(""), found | {"fold0": labels(("car", ASIDE, 0.9))}, CLASSES, RULES).kept


def test_a_labeler_has_no_say_about_objects_that_it_does_not_know() -> None:
    both = labels(("piano", LEFT, 0.9), ("car", RIGHT, 0.9))
    found = {"detector": both, "flipped": both, "mask2former": labels(("car", RIGHT, 0.9))}
    judgement = judge_by_agreement(Prompt(""), found, CLASSES, RULES, known_classes={"mask2former": ["car"]})
    assert judgement.kept and len(judgement.instances) == 2
