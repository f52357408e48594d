"""The verdict on a run: good, doubtful or failed, why, and what to do next.

It rests on held-out photos and on images without the object (`bootstrap.evidence`). The evaluation set's truth is not
read: a run without one must be able to say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bootstrap.measures.balance import wilson_interval
from bootstrap.row import FOUND, FOUND_BY_TRAINED, FOUND_ELSEWHERE, Row, are_photos_alone, number

Level = Literal["good", "doubtful", "failed"]

GOOD_FOUND, FAILED_FOUND = 0.75, 0.4
"""Share of the photos on which the object is found, at least for good, and at most for failed. For good, its 95 %
interval must lie above failed as well: three of four photos may be luck."""
GOOD_FALSE, FAILED_FALSE = 0.2, 0.5
"""Share of the images without the object on which it is found, at most for good, and at least for failed. Also the
share of labelled photos of it on which it is found elsewhere, at most for good."""
GOOD_IOU = 0.6
"""Least mean IoU of found masks with the photos' outlines for good."""
FEW_PHOTOS = 3
"""With fewer the evidence is too thin for more than doubtful."""
FEW_OTHERS = 16
"""With fewer images of other things, of which it is found on none, the 95 % interval ends above `GOOD_FALSE`."""
# Cross-fitted judges are no better than the detector that was trained on everything, which is no better than it looks
# on its own training images. So a run failed where both say so.


@dataclass(frozen=True)
class RunVerdict:
    """What a run says about itself.

    Attributes:
        level: "good", "doubtful" or "failed".
        reasons: why, as sentences; the decisive one first.
        advice: what to do next, as sentences.
    """

    level: Level
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON form, as rows of metrics have it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunVerdict:
        """The inverse of `to_json`."""
        return cls(value["level"], tuple(value["reasons"]), tuple(value["advice"]))

    def text(self) -> str:
        """The verdict in a few lines."""
        lines = [f"verdict: {self.level.upper()}. {self.reasons[0]}", *self.reasons[1:]]
        return "\n  ".join([*lines, *(f"next: {advice}" for advice in self.advice)])


def judge_round(row: Mapping[str, Any] | Row, epochs: int | None = None) -> RunVerdict:
    """The verdict on a round's checkpoint.

    Args:
        row: its row of metrics; `test/` is not read.
        epochs: of its fine-tuning, for the advice.
    """
    return _with_concepts(_by_evidence(row, epochs), row)


def _with_concepts(verdict: RunVerdict, row: Mapping[str, Any] | Row) -> RunVerdict:
    """The verdict that tells of failed concepts; they do not decide, as photos of the pool can make up for them."""
    failed = row.get("failed_concepts") or {}
    if verdict.level == "good":
        made_up = " The photos of the pool made up for it." if row.get("num_photos") else ""
        return replace(verdict, reasons=(*verdict.reasons, *(f"{text}{made_up}" for text in failed)))
    return replace(verdict, reasons=(*verdict.reasons, *failed), advice=(*failed.values(), *verdict.advice))


def _by_evidence(row: Mapping[str, Any] | Row, epochs: int | None) -> RunVerdict:
    num = int(number(row, "photos/num") or 0)
    if not num:
        return _unlabelled() if are_photos_alone(row) else _without_evidence()
    findings = [_found(row, num, epochs), *_elsewhere(row, num), *_false_positives(row), *_masks(row)]
    order: list[Level] = ["failed", "doubtful", "good"]
    if num < FEW_PHOTOS:
        text = f"{_count(num, 'photo')} {'is' if num == 1 else 'are'} little evidence."
        findings.append(("doubtful", text, _more_photos(row)))
    level = min((finding[0] for finding in findings), key=order.index)
    findings.sort(key=lambda finding: order.index(finding[0]))
    advice = [finding[2] for finding in findings if finding[2]]
    if level == "good":
        threshold = number(row, "photos/threshold") or 0.0
        advice.append(f"Use best.pt; `diffugen predict` takes its confidence threshold, {threshold:.2f}, by default.")
    return RunVerdict(level, tuple(finding[1] for finding in findings), tuple(dict.fromkeys(advice)))


def judge_run(rows: Sequence[Row]) -> RunVerdict:
    """The verdict on a run: that on the round whose checkpoint stands promoted.

    Args:
        rows: of the complete rounds.
    """
    promoted = [row for row in rows if row["promoted"]]
    if not promoted:
        return _without_checkpoint(rows[-1])
    best = promoted[-1]
    return RunVerdict.from_json(best["verdict"]) if "verdict" in best else judge_round(best)


NEGATIVES = (
    ("photo", "photo", "without it"),
    ("other", "generated image", "of other things"),
    ("generated", "generated image", "without it"),
)
"""The images without the object: where they come from, what they are, and of what."""
OTHER_THINGS = "generate images of things that are none of your classes (`prompts`: docs/generating.md)"
DRAW_SOME = "Draw the objects on a few photos and give them as `labelled`; at least three, better ten."

Finding = tuple[Level, str, str]
"""What one kind of evidence says, in words, and what to do about it."""


def _without_evidence() -> RunVerdict:
    return RunVerdict(
        "doubtful",
        (
            "There is no evidence: no photo shows whether the detector finds the real object. "
            "All figures are from images that the loop made itself.",
        ),
        ("Give photos of the object as `concept.photos` or `pool.folder`.",),
    )


def _unlabelled() -> RunVerdict:
    return RunVerdict(
        "doubtful",
        ("There is no evidence: no photo came with labels, and the detector's own prove nothing.",),
        (DRAW_SOME,),
    )


def _without_checkpoint(row: Row) -> RunVerdict:
    """Of a run of which no round's checkpoint was promoted, by its last row."""
    advice: tuple[str, ...]
    if are_photos_alone(row):
        advice = ("Use the detector that the run began with.", DRAW_SOME)
    else:
        advice = ("Look at why images were rejected, and at concept/samples.png.",)
    return _with_concepts(RunVerdict("failed", (f"No checkpoint was promoted: {row['why']}.",), advice), row)


def _found(row: Mapping[str, Any] | Row, num: int, epochs: int | None) -> Finding:
    share, score = number(row, FOUND) or 0.0, number(row, "photos/score") or 0.0
    hits = round(share * num)
    text = (
        f"The object is found on {hits} of {_count(num, 'photo')} by detectors that were not trained on the photo "
        f"({_interval(hits, num)}), with a mean confidence of {score:.2f}{_at(row)}."
    )
    if share >= GOOD_FOUND:
        is_sure = wilson_interval(hits, num)[0] > FAILED_FOUND
        return ("good", text, "") if is_sure else ("doubtful", f"{text} So few photos may be luck.", _more_photos(row))
    level: Level = "failed" if share <= FAILED_FOUND else "doubtful"
    trained = number(row, FOUND_BY_TRAINED)
    if level == "failed" and trained is not None and trained >= GOOD_FOUND:
        level, text = "doubtful", f"{text} {_between(f'{round(trained * num)} of them')}"
    return level, text, _advice_where_missed(row, score, epochs)


def _at(row: Mapping[str, Any] | Row) -> str:
    """The judges' threshold, where it is another than that of the detector that one gets."""
    judged, own = number(row, "photos/judged_threshold"), number(row, "photos/threshold")
    return "" if judged is None or judged == own else f" (found counts from {judged:.2f} on)"


def _elsewhere(row: Mapping[str, Any] | Row, num: int) -> list[Finding]:
    share = number(row, FOUND_ELSEWHERE)
    if not share:
        return []
    text = f"On {round(share * num)} of {_count(num, 'photo')} it is found where it is not."
    if share <= GOOD_FALSE:
        return [("good", text, "")]
    return [("doubtful", text, f"See in the report where. {_more_photos(row)}")]


def _more_photos(row: Mapping[str, Any] | Row) -> str:
    if are_photos_alone(row):
        return "Draw the objects on more photos (`labelled`); better ten."
    return "Add photos of the object; better ten."


def _between(found: str) -> str:
    """What it means that the round's own detector does well where the judges do not."""
    return (
        f"The round's own detector, which was trained on most of them, finds it on {found}. What it does with new "
        "images is between the two: the judges had fewer photos and fewer steps."
    )


def _advice_where_missed(row: Mapping[str, Any] | Row, score: float, epochs: int | None) -> str:
    setting = "`detector.epochs`" + ("" if epochs is None else f", now {epochs}")
    if are_photos_alone(row):
        return f"Label more photos (`labelled`), train longer ({setting}), or start from a larger base detector."
    if score > 0.1:
        return f"Train longer ({setting}), or add photos to the pool."
    pool = "" if row.get("num_photos") else "Train on the photos as well (`pool`). "
    return (
        f"{pool}Train longer ({setting}). See in concept/samples.png whether the word draws the object; if not, give "
        "the concept more steps, another start word, or `concept.lora_rank`."
    )


def _false_positives(row: Mapping[str, Any] | Row) -> list[Finding]:
    findings = []
    for source, what, without in NEGATIVES:
        share, num = number(row, f"negatives/{source}/false_positives"), number(row, f"negatives/{source}/num")
        if share is None or not num or not (share or number(row, FOUND)):
            continue  # a detector that finds nothing anywhere is not careful
        hits, interval = round(share * num), _interval(round(share * num), round(num))
        text = f"It is wrongly found on {hits} of {_count(round(num), what)} {without} ({interval})."
        level: Level = "good" if share <= GOOD_FALSE else "doubtful"
        trained = number(row, f"negatives/{source}/false_positives_by_trained")
        if share >= FAILED_FALSE and num >= FEW_PHOTOS:
            level = "failed"
            if trained is not None and trained <= GOOD_FALSE:
                level, text = "doubtful", f"{text} {_between(f'{round(trained * num)} of them')}"
        more = "give photos without it to `labelled`" if are_photos_alone(row) else OTHER_THINGS
        threshold = number(row, "photos/threshold") or 0.0
        is_careful = trained is not None and trained <= GOOD_FALSE  # a higher threshold would cost finds for nothing
        raised = "" if is_careful else f"Raise the confidence threshold (`--conf`, now {threshold:.2f}), or "
        advice = f"{raised}{more}."
        advice = advice[0].upper() + advice[1:]
        findings.append((level, text, "" if level == "good" else advice))
    num = round(sum(number(row, f"negatives/{source}/num") or 0 for source in ("photo", "other")))
    if number(row, FOUND) and num < FEW_OTHERS:
        judged = f"hardly known: only {_count(num, 'image')} of them" if num else "not known: no image of them"
        text = f"What other things it takes for the object is {judged} {'were' if num > 1 else 'was'} judged."
        findings.append(("good", text, f"Give more photos without the object (`negatives`){_or_others(row)}."))
    return findings


def _or_others(row: Mapping[str, Any] | Row) -> str:
    return "" if are_photos_alone(row) else f", or {OTHER_THINGS}"


def _masks(row: Mapping[str, Any] | Row) -> list[Finding]:
    iou, num = number(row, "photos/mask_iou"), number(row, "photos/num_compared")
    if iou is None:
        return []
    outlines = "yours" if are_photos_alone(row) else "the loop's own outlines"
    where = f" ({_count(round(num), 'photo')})" if num else ""
    text = f"Found masks match {outlines} with a mean IoU of {iou:.2f}{where}."
    if iou >= GOOD_IOU:
        return [("good", text, "")]
    return [("doubtful", text, "Look at the masks in the report; better outlines: `label.outline`, or draw a few.")]


def _interval(hits: int, num: int) -> str:
    low, high = wilson_interval(hits, num)
    return f"95 % interval {low:.0%} to {high:.0%}"


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}{'' if num == 1 else 's'}"
