"""A row of metrics: what a round did and how good it was. `metrics.json` holds one, `metrics.jsonl` one per round.

A row has the fields of `Row`, and a number for each of `MEASURES` that could be measured. Average precision comes for
each class as well, as `test/<class>/<metric>` and `val/<class>/<metric>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from diffugen.errors import UserError
from diffugen.files import read_json, read_jsonl


class Row(TypedDict):
    """The fields of a row of metrics that are not plain measures.

    Attributes:
        round: the round's number, from 0.
        labeler: whose labels the kept images have: "attention", "detector", "consensus", several of them joined by
            " and ", or "none".
        labels_from: which labeler was asked: "attention", or "detector" (then attention and the checks as well), or
            "given" (none: photos came with labels).
        labels_why: why that one.
        num_generated: images, the pool's photos included.
        num_photos: those of them that are photos of the pool.
        num_variations: those of them that were generated from an earlier image.
        num_kept, num_rejected, num_review: images by outcome.
        rejected: images by the reason for which they were rejected, such as "low_iou:car".
        label_agreement: mean IoU of the detector's instances and attention's (without a model: those of the mirrored
            view) in the round's images, 0 to 1; None where only attention labelled.
        promoted: whether the round's checkpoint became the best one.
        why: the reason for that.
        balance: kept rates by what the prompts vary, see `bootstrap.measures.balance`.
        failed_concepts: concepts that draw nothing of their photos: what is wrong -> what to do.
        verdict: what the run says about itself after this round, see `bootstrap.verdict`.
        seconds: wall-clock time by stage: "generate", "label", "finetune", "photos", "compare", "evaluate".
    """

    round: int
    labeler: str
    labels_from: str
    labels_why: str
    num_generated: int
    num_photos: NotRequired[int]
    num_variations: int
    num_kept: int
    num_rejected: int
    num_review: int
    rejected: dict[str, int]
    label_agreement: float | None
    promoted: bool
    why: str
    balance: NotRequired[dict[str, Any]]
    failed_concepts: NotRequired[dict[str, str]]
    verdict: NotRequired[dict[str, Any]]
    seconds: NotRequired[dict[str, float]]


Evidence = Literal[
    "held-out photos",
    "held-out images",
    "training images",
    "validation images",
    "evaluation set",
    "generated images",
    "photos",
]


@dataclass(frozen=True)
class Measure:
    """One number of a row.

    Attributes:
        key: its name in the row.
        text: what it is, in a few words.
        unit: its scale; of "0 to 1" 1 is best.
        evidence: what it was measured on. "held-out photos" are the user's, which the judging detectors were not
            trained on, and "held-out images" generated ones. "training images" are the same where the detector was
            trained on them: they bound what it does on new ones. "validation images" are generated images that
            attention labelled: they show drift, but share the generator's faults. The "evaluation set" has ground
            truth; no decision reads it.
    """

    key: str
    text: str
    unit: str
    evidence: Evidence


FOUND = "photos/found"
FOUND_BY_TRAINED = "photos/found_by_trained"
FOUND_ELSEWHERE = "photos/found_elsewhere"
IMAGE_AGREEMENT = "val/image_agreement"
AGREEMENT = "val/label_agreement"
BASE_AGREEMENT = "val/base_agreement"
_MMD = "squared maximum mean discrepancy, around 0 is best"

_TABLE: tuple[tuple[Evidence, str, dict[str, str]], ...] = (
    (
        "held-out photos",
        "0 to 1",
        {
            FOUND: "share of photos on which the object is found",
            "photos/score": "mean confidence of the object on photos (0 where it is missed)",
            "photos/mask_iou": "mean IoU of found masks and the outlines on the photos",
            "photos/threshold": "suggested confidence threshold for the round's own detector",
            "photos/judged_threshold": "confidence threshold of those who judged (best F1)",
        },
    ),
    (
        "held-out photos",
        "0 to 1, 0 is best",
        {
            FOUND_ELSEWHERE: "share of photos of the object on which it is found where it is not",
            "negatives/photo/false_positives": "share of photos without the object on which it is found",
        },
    ),
    (
        "held-out images",
        "0 to 1, 0 is best",
        {
            "negatives/generated/false_positives": "share of generated images without the object on which it is found",
            "negatives/other/false_positives": "share of generated images of other things on which it is found",
        },
    ),
    (
        "held-out photos",
        "number of images",
        {
            "photos/num": "photos that were judged",
            "photos/num_compared": "photos on which a found mask was compared with an outline",
            "negatives/generated/num": "generated images without the object that were judged",
            "negatives/other/num": "generated images of other things that were judged",
            "negatives/photo/num": "photos without the object that were judged",
        },
    ),
    (
        "training images",
        "0 to 1",
        {FOUND_BY_TRAINED: "share of photos on which the round's own detector, trained on them, finds it: upper bound"},
    ),
    (
        "training images",
        "0 to 1, 0 is best",
        {
            f"negatives/{source}/false_positives_by_trained": f"share of the generated images {what} on "
            "which the round's own detector, trained on most of them, finds it: lower bound"
            for source, what in (("generated", "without the object"), ("other", "of other things"))
        },
    ),
    (
        "validation images",
        "0 to 1",
        {
            "val/mask_map50": "validation, rare classes: mask mAP50",
            "val/mask_map50_95": "validation, rare classes: mask mAP50-95",
            "val/box_map50": "validation, rare classes: box mAP50",
            "val/box_map50_95": "validation, rare classes: box mAP50-95",
            "val/mean/mask_map50": "validation, all classes: mask mAP50",
            "val/mean/mask_map50_95": "validation, all classes: mAP50-95",
            "val/mean/box_map50": "validation, all classes: box mAP50",
            "val/mean/box_map50_95": "validation, all classes: box mAP50-95",
            AGREEMENT: "agreement of the new detector with labels of validation images (IoU by object, 0 if missed)",
            IMAGE_AGREEMENT: "validation: agreement by image (decides on promotion)",
            BASE_AGREEMENT: "validation: agreement of round 0's labeler with itself on mirrored photos, by image",
        },
    ),
    (
        "evaluation set",
        "0 to 1",
        {
            "test/mask_map50": "evaluation: mask mAP50",
            "test/mask_map50_95": "evaluation: mask mAP50-95",
            "test/box_map50": "evaluation: box mAP50",
            "test/box_map50_95": "evaluation: box mAP50-95",
            "test/mean/mask_map50": "evaluation, all classes: mask mAP50",
            "test/mean/mask_map50_95": "evaluation, all classes: mask mAP50-95",
            "test/mean/box_map50": "evaluation, all classes: box mAP50",
            "test/mean/box_map50_95": "evaluation, all classes: box mAP50-95",
            "test/labels/attention/mean_iou": "attention's labels against the truth: mean IoU",
            "test/labels/attention/precision": "attention's labels against the truth: precision",
            "test/labels/attention/recall": "attention's labels against the truth: recall",
            "test/labels/detector/mean_iou": "the new detector's labels against the truth: mean IoU",
            "test/labels/detector/precision": "the new detector's labels against the truth: precision",
            "test/labels/detector/recall": "the new detector's labels against the truth: recall",
        },
    ),
    (
        "generated images",
        "number of images",
        {
            "images/vendi_score": "Vendi score: effective number of different images",
            "images/kept/vendi_score": "the same of the kept images",
            "images/rare/vendi_score": "the same of images with a rare object",
        },
    ),
    (
        "generated images",
        "cosine distance, 0 to 2",
        {
            "images/mean_distance": "mean cosine distance of two images",
            "images/kept/mean_distance": "the same of the kept images",
            "images/rare/mean_distance": "the same of images with a rare object",
        },
    ),
    (
        "generated images",
        "0 to 1, 0 is best",
        {
            "images/near_duplicate_fraction": "share of near-duplicates",
            "images/kept/near_duplicate_fraction": "the same of the kept images",
            "images/rare/near_duplicate_fraction": "the same of images with a rare object",
        },
    ),
    (
        "generated images",
        "0 to 1",
        {"label_agreement": "agreement of the detector with attention, else with its mirrored view (mean IoU)"},
    ),
    (
        "photos",
        _MMD,
        {"images/rare/kernel_distance_photos": "kernel distance of images with a rare object to the photos"},
    ),
    (
        "evaluation set",
        _MMD,
        {
            "test/images/kernel_distance": "kernel distance of all images to the evaluation set",
            "test/images/kid": "KID to the evaluation set",
        },
    ),
    ("evaluation set", "Fréchet distance, 0 is best", {"test/images/fid": "FID to the evaluation set"}),
)

MEASURES = {key: Measure(key, text, unit, evidence) for evidence, unit, texts in _TABLE for key, text in texts.items()}
"""The measures by their keys; "mAP" is COCO's average precision of the round's checkpoint."""

PHOTO_MEASURES = (
    FOUND,
    "photos/score",
    "photos/mask_iou",
    FOUND_ELSEWHERE,
    "negatives/photo/false_positives",
    "negatives/other/false_positives",
    "negatives/generated/false_positives",
    "photos/judged_threshold",
    "photos/threshold",
)
SCORES = (
    "val/mean/mask_map50",
    "val/mean/mask_map50_95",
    "val/image_agreement",
    "test/mask_map50",
    "test/mask_map50_95",
    "test/box_map50_95",
)
LABEL_MEASURES = (
    "label_agreement",
    "val/label_agreement",
    "test/labels/attention/mean_iou",
    "test/labels/attention/precision",
    "test/labels/attention/recall",
    "test/labels/detector/mean_iou",
    "test/labels/detector/precision",
    "test/labels/detector/recall",
)
IMAGE_MEASURES = (
    "images/vendi_score",
    "images/kept/vendi_score",
    "images/mean_distance",
    "images/kept/mean_distance",
    "images/near_duplicate_fraction",
    "images/kept/near_duplicate_fraction",
    "images/rare/kernel_distance_photos",
    "test/images/kernel_distance",
    "test/images/fid",
    "test/images/kid",
)
"""The measures that the report shows and W&B plots, in their order."""


def number(row: Mapping[str, Any] | Row, key: str) -> float | None:
    """A measure of a row; None where it was not measured."""
    return cast(Mapping[str, Any], row).get(key)


def are_photos_alone(row: Mapping[str, Any] | Row) -> bool:
    """Whether nothing was generated, in a loop without a diffusion model."""
    return "num_photos" in row and row["num_photos"] == row["num_generated"]


def scores_by_attribute(row: Mapping[str, Any] | Row) -> dict[str, dict[str, dict[str, float]]]:
    """The evaluation set by its images' attributes: slot -> value -> "num_images" and average precision on these.

    Empty where no attributes are known.
    """
    return cast(Mapping[str, Any], row).get("test/by_attribute", {})


def read_row(path: Path) -> Row:
    """Read a round's `metrics.json`.

    Raises:
        UserError: it is damaged.
    """
    return _checked(read_json(path), path, ("promoted",))


def read_rows(path: Path) -> list[Row]:
    """Read a run's `metrics.jsonl`.

    Raises:
        UserError: it is damaged, or lacks what every version has written.
    """
    return [_checked(value, path, _SHOWN) for value in read_jsonl(path)]


CONFUSION = "test/confusion"
"""Counts of the evaluation set's objects by true and predicted class, see `diffugen.evaluation.confusion`."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("round", "num_generated", "num_variations", "num_kept", "num_rejected", "num_review"), int),
    **dict.fromkeys(("labeler", "labels_from", "labels_why", "why"), str),
    **dict.fromkeys(("rejected", "balance", "verdict", "seconds", "test/by_attribute"), dict),
    "promoted": bool,
    CONFUSION: list,
}
_SHOWN = (
    *("round", "labeler", "num_generated", "num_kept", "num_rejected", "num_review"),
    *("promoted", "why", "rejected"),
)
_NUMBER = (int, float, type(None))


def _checked(row: Any, path: Path, needed: Sequence[str]) -> Row:
    """A row whose fields are what `Row` says: a run folder may be somebody else's."""
    fields = row if isinstance(row, dict) else {}
    wrong = [key for key in needed if key not in fields]
    kinds = dict.fromkeys(MEASURES, _NUMBER) | _KINDS
    wrong += [key for key, value in fields.items() if not isinstance(value, kinds.get(key, object))]
    seconds, verdict = fields.get("seconds", {}), fields.get("verdict", _NO_VERDICT)
    if not wrong and not all(isinstance(value, int | float) for value in seconds.values()):
        wrong = ["seconds"]
    if not wrong and not _is_verdict(verdict):
        wrong = ["verdict"]
    if wrong:
        raise UserError(
            f"{path} is damaged ({min(wrong)!r} is missing or no such value); restore it from a copy, or remove its "
            "round, which is then made again"
        )
    return cast(Row, row)


_NO_VERDICT = {"level": "failed", "reasons": [""], "advice": []}


def _is_verdict(value: Mapping[str, Any]) -> bool:
    lists = [value.get(name) for name in ("reasons", "advice")]
    return (
        value.get("level") in ("good", "doubtful", "failed")
        and bool(lists[0])
        and all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)
    )
