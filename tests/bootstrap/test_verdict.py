"""The verdict follows from held-out photos and images without the object, never from the truth."""

from __future__ import annotations

from typing import Any

import pytest

from bootstrap.verdict import RunVerdict, judge_round, judge_run

GOOD: dict[str, Any] = {
    "photos/num": 6,
    "photos/found": 1.0,
    "photos/score": 0.9,
    "photos/mask_iou": 0.8,
    "photos/threshold": 0.4,
    "negatives/generated/num": 10,
    "negatives/generated/false_positives": 0.0,
    "negatives/other/num": 20,
    "negatives/other/false_positives": 0.0,
}

MISSED = {"photos/found": 0.0, "photos/score": 0.0}
WRONG = {"negatives/generated/false_positives": 0.6}
WRONG_BY_TRAINED = "negatives/generated/false_positives_by_trained"


@pytest.mark.parametrize(
    ("changes", "level", "reason"),
    [
        ({}, "good", "found on 6 of 6 photos"),
        ({"photos/found": 0.5}, "doubtful", "found on 3 of 6 photos"),
        (MISSED, "failed", "found on 0 of 6 photos"),
        ({"photos/mask_iou": 0.4}, "doubtful", "mean IoU of 0.40"),
        ({"negatives/generated/false_positives": 0.6}, "failed", "wrongly found on 6 of 10 generated images"),
        ({"negatives/photo/num": 4, "negatives/photo/false_positives": 0.25}, "doubtful", "on 1 of 4 photos without"),
        ({"negatives/other/false_positives": 0.4}, "doubtful", "found on 8 of 20 generated images of other things"),
        ({"negatives/other/false_positives": 0.8}, "failed", "found on 16 of 20 generated images of other things"),
        ({"negatives/other/num": None}, "good", "found on 6 of 6 photos"),
        ({"photos/num": 2}, "doubtful", "found on 2 of 2 photos"),
        ({"photos/num": 2} | MISSED, "failed", "found on 0 of 2 photos"),
        ({"photos/num": 4, "photos/found": 0.75}, "doubtful", "may be luck"),
        ({"photos/found": 5 / 6}, "good", "found on 5 of 6 photos"),
        ({"photos/found_elsewhere": 0.5}, "doubtful", "On 3 of 6 photos it is found where it is not"),
        ({"photos/found_elsewhere": 1 / 6}, "good", "found on 6 of 6 photos"),
        (MISSED | {"photos/found_by_trained": 0.5}, "failed", "found on 0 of 6 photos"),
        (
            {"photos/found": 0.0, "photos/found_by_trained": 1.0},
            "doubtful",
            "trained on most of them, finds it on 6 of them",
        ),
        (WRONG | {"negatives/generated/false_positives_by_trained": 0.0}, "doubtful", "finds it on 0 of them"),
        (
            WRONG | {"negatives/generated/false_positives_by_trained": 0.4},
            "failed",
            "found on 6 of 10 generated images",
        ),
        ({"test/mask_map50": 0.0}, "good", "found on 6 of 6 photos"),
    ],
)
def test_the_decisive_reason_comes_first(changes: dict[str, Any], level: str, reason: str) -> None:
    verdict = judge_round(GOOD | changes)
    assert verdict.level == level and reason in verdict.reasons[0]
    assert verdict.advice and verdict.text().startswith(f"verdict: {level.upper()}. ")
    assert RunVerdict.from_json(verdict.to_json()) == verdict


def test_few_photos_are_little_evidence_whatever_they_say() -> None:
    for changes in ({}, MISSED):
        verdict = judge_round(GOOD | {"photos/num": 2} | changes)
        assert any("little evidence" in reason for reason in verdict.reasons)
        assert sum("better ten" in advice for advice in verdict.advice) == 1


def test_a_detector_that_finds_nothing_is_not_praised_for_finding_nothing_elsewhere() -> None:
    assert not any("wrongly" in reason for reason in judge_round(GOOD | MISSED).reasons)
    assert any(
        "0 of 10 generated images without it (95 % interval 0% to 28%)" in one for one in judge_round(GOOD).reasons
    )


def test_advice_names_what_the_run_has_not_tried() -> None:
    without_pool = judge_round(GOOD | MISSED | {"num_photos": 0, "num_generated": 9}, epochs=2).advice[0]
    with_pool = judge_round(GOOD | MISSED | {"num_photos": 6, "num_generated": 9}, epochs=2).advice[0]
    assert without_pool.startswith("Train on the photos as well (`pool`). Train longer (`detector.epochs`, now 2).")
    assert with_pool.startswith("Train longer (`detector.epochs`, now 2). See in concept/samples.png")


def test_masks_are_compared_with_whose_outlines_and_on_how_many_photos() -> None:
    alone = {"num_generated": 9, "num_photos": 9}
    drawn = judge_round(GOOD | {"photos/num_compared": 5}).reasons
    assert "Found masks match the loop's own outlines with a mean IoU of 0.80 (5 photos)." in drawn
    assert "Found masks match yours with a mean IoU of 0.80." in judge_round(GOOD | alone).reasons


def test_advice_does_not_contradict_itself() -> None:
    bad = {"photos/found": 0.5, "photos/score": 0.5, "photos/found_elsewhere": 0.5}
    for changes in ({}, {"num_generated": 9, "num_photos": 9}):
        advice = " ".join(judge_round(GOOD | bad | changes).advice)
        assert "--conf" not in advice and "better ten" in advice


def test_without_photos_there_is_no_evidence() -> None:
    verdict = judge_round({"test/mask_map50": 0.99})
    assert verdict.level == "doubtful" and "no evidence" in verdict.reasons[0]


def test_detectors_own_labels_of_photos_are_no_evidence() -> None:
    verdict = judge_round({"num_generated": 9, "num_photos": 9, "val/image_agreement": 0.95})
    assert verdict.level == "doubtful" and "no photo came with labels" in verdict.reasons[0]
    assert "`labelled`" in verdict.advice[0]


def test_a_run_without_a_checkpoint_says_why_and_what_to_use() -> None:
    row: Any = {"promoted": False, "why": "it strayed", "num_generated": 9, "num_photos": 9}
    alone, drawn = judge_run([row]), judge_run([row | {"num_generated": 10}])
    assert alone.level == drawn.level == "failed"
    assert alone.reasons == drawn.reasons == ("No checkpoint was promoted: it strayed.",)
    assert "that the run began with" in alone.advice[0] and "concept/samples.png" in drawn.advice[0]


def test_advice_about_photos_alone_names_no_generated_images() -> None:
    bad = {"photos/found": 0.0, "photos/score": 0.0, "negatives/photo/num": 4, "negatives/photo/false_positives": 1.0}
    alone = judge_round(GOOD | bad | {"num_generated": 9, "num_photos": 9})
    assert "Label more photos" in alone.advice[0] and "to `labelled`" in alone.advice[1]
    assert "concept/samples.png" in judge_round(GOOD | bad).advice[0]


def test_the_run_is_judged_by_the_promoted_round() -> None:
    rows: list[Any] = [
        {**GOOD, "round": 0, "promoted": True},
        {**GOOD, "photos/found": 0.0, "round": 1, "promoted": False, "why": "worse"},
    ]
    assert judge_run(rows).level == "good"
    assert judge_run([rows[1]]).level == "failed"


def test_a_failed_concept_is_told_and_does_not_decide() -> None:
    failed: dict[str, Any] = {"failed_concepts": {"The concept failed.": "Give it more steps."}}
    good, bad = judge_round(GOOD | failed | {"num_generated": 9, "num_photos": 6}), judge_round(GOOD | MISSED | failed)
    assert good.level == "good" and good.reasons[-1] == "The concept failed. The photos of the pool made up for it."
    assert judge_round(GOOD | failed).reasons[-1] == "The concept failed."
    assert "best.pt" in good.advice[0]
    assert bad.level == "failed" and "found on 0" in bad.reasons[0] and bad.advice[0] == "Give it more steps."
    assert judge_round(failed).reasons[-1] == "The concept failed."
    without: Any = {"promoted": False, "why": "it strayed", "num_generated": 9, "num_photos": 0, **failed}
    assert judge_run([without]).advice[0] == "Give it more steps."


def test_a_run_that_shows_its_classes_alone_does_not_know_what_else_it_takes_for_the_object() -> None:
    shown = {"negatives/photo/num": 16, "negatives/photo/false_positives": 0.0}
    for known in (GOOD, GOOD | {"negatives/other/num": None} | shown):
        assert not any("known" in reason for reason in judge_round(known).reasons)
    for num, said in (
        (None, "not known: no image of them was judged"),
        (6, "hardly known: only 6 images of them were judged"),
    ):
        unknown = judge_round(GOOD | {"negatives/other/num": num, "negatives/generated/num": None})
        assert any(said in reason for reason in unknown.reasons)
        assert any("docs/generating.md" in advice for advice in unknown.advice)
    alone = judge_round(GOOD | {"negatives/other/num": None, "num_generated": 9, "num_photos": 9})
    assert "Give more photos without the object (`negatives`)." in alone.advice


def test_the_threshold_is_not_to_be_raised_where_the_detector_itself_is_careful() -> None:
    thresholds = {"photos/threshold": 0.44, "photos/judged_threshold": 0.16}
    careful, careless = (judge_round(GOOD | WRONG | {WRONG_BY_TRAINED: share} | thresholds) for share in (0.0, 0.4))
    assert "(found counts from 0.16 on)" in " ".join(careful.reasons)
    assert careless.advice[0].startswith("Raise the confidence threshold (`--conf`, now 0.44), or generate images of")
    assert careful.advice[0].startswith("Generate images of things")
