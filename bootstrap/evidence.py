"""What a detector finds on the user's own photos that it was not trained on, and on images without the object.

Most photos have no labels, but each shows the object: a detection counts as found where it overlaps the best outline
that the loop has of that photo. Of images without the object, every detection is wrong. Photos that came with labels
are judged by their largest object, and by all objects together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from bootstrap.row import FOUND, FOUND_BY_TRAINED, FOUND_ELSEWHERE
from diffugen.contained import file_inside
from diffugen.errors import UserError, reason_of
from diffugen.files import read_json, write_json
from diffugen.instances import Instances
from diffugen.masks.matching import mask_iou
from diffugen.sample import EncodedInstances

MIN_SCORE = 0.05
"""Weaker detections are not looked at."""
MIN_OVERLAP = 0.3
"""Least IoU with a photo's best outline for a detection to be of the object. Outlines by attention are rough."""
DEFAULT_THRESHOLD = 0.25
"""The threshold of `diffugen predict` where there is no evidence for another."""
NO_LABELS = Instances.empty((1, 1)).to_json()
_THRESHOLD_RANGE = 0.1, 0.9


@dataclass(frozen=True)
class PhotoFinding:
    """What a detector found on a photo of the object that it was not trained on.

    Attributes:
        name: the photo's file name.
        class_name: the object it shows.
        score: the highest confidence of a detection of the object in its place, 0 if there is none.
        iou: that detection's mask IoU with the photo's best outline; None if it was not found or has no outline.
        false_score: the highest confidence of a detection of a rare class elsewhere, 0 if there is none.
        judge: which detector judged it: "checkpoint", or "fold 0" and so on for one trained without this photo.
        image: its file, relative to the run folder.
        found, outline: the detections, and the best outline, in the JSON form of `Instances`.
        trained_score: of a photo that a fold judged, the score by the round's checkpoint, which was trained on it; None
            of others.
        agreement: of a photo that came with labels, mean IoU of the detections with them over all objects, one that
            only one of them has counting 0; None of others.
    """

    name: str
    class_name: str
    score: float
    iou: float | None
    false_score: float
    judge: str
    image: str
    found: EncodedInstances = field(default_factory=dict)
    outline: EncodedInstances = field(default_factory=dict)
    agreement: float | None = None
    trained_score: float | None = None


@dataclass(frozen=True)
class NegativeFinding:
    """The highest confidence of a detection of a rare class on an image without one, 0 if there is none.

    Attributes:
        source: "generated"; "other" for a generated image of a thing that is none of the run's classes; "photo" for the
            user's own.
        trained_score: as for a photo.
    """

    name: str
    score: float
    source: str
    trained_score: float | None = None


@dataclass(frozen=True)
class Evidence:
    """A round's evidence: photos of the object, and images without it, that its judges were not trained on."""

    photos: tuple[PhotoFinding, ...] = ()
    negatives: tuple[NegativeFinding, ...] = ()

    @cached_property
    def threshold(self) -> float:
        """The confidence threshold that suits the round's checkpoint.

        It follows from the scores that new images may have, see `suggest_threshold`: midway between those of a fold's
        judge, who saw less, and the checkpoint's own on what it was trained on.
        """
        return suggest_threshold(*self._scores(_midway))

    @cached_property
    def judged_threshold(self) -> float:
        """The confidence threshold that suits those who judged."""
        return suggest_threshold(*self.scores())

    def threshold_for(self, finding: PhotoFinding | NegativeFinding) -> float:
        """The threshold at which what was found on an image counts: that of whoever judged it."""
        return self.threshold if finding.trained_score is None else self.judged_threshold

    def scores(self) -> tuple[list[float], list[float]]:
        """The judges' confidences of what should be found, and of what should not."""
        return self._scores(lambda finding: finding.score)

    def _scores(self, of: Callable[[PhotoFinding | NegativeFinding], float]) -> tuple[list[float], list[float]]:
        elsewhere = [photo.false_score for photo in self.photos if photo.false_score]
        return [of(photo) for photo in self.photos], [*elsewhere, *map(of, self.negatives)]

    def measures(self) -> dict[str, float]:
        """The measures of a row of metrics, see `bootstrap.row`; none without photos."""
        if not self.photos:
            return {}
        found = [photo for photo in self.photos if photo.score >= self.threshold_for(photo)]
        ious = [photo.iou for photo in found if photo.iou is not None]
        measured = {
            "photos/num": len(self.photos),
            FOUND: len(found) / len(self.photos),
            "photos/score": float(np.mean([photo.score for photo in self.photos])),
            "photos/threshold": self.threshold,
            "photos/judged_threshold": self.judged_threshold,
        }
        if ious:
            measured |= {"photos/mask_iou": float(np.mean(ious)), "photos/num_compared": len(ious)}
        if labelled := [photo for photo in self.photos if photo.agreement is not None]:
            # what is elsewhere on other photos may be a second object, of which the loop has no outline
            elsewhere = [photo.false_score >= self.threshold_for(photo) for photo in labelled]
            measured[FOUND_ELSEWHERE] = float(np.mean(elsewhere))
        if (trained := _trained_scores(self.photos)) is not None:
            measured[FOUND_BY_TRAINED] = float(np.mean(trained >= self.threshold))
        for source in ("generated", "other", "photo"):
            negatives = [one for one in self.negatives if one.source == source]
            if negatives:
                measured[f"negatives/{source}/num"] = len(negatives)
                measured[f"negatives/{source}/false_positives"] = float(
                    np.mean([one.score >= self.threshold_for(one) for one in negatives])
                )
            if (trained := _trained_scores(negatives)) is not None:
                measured[f"negatives/{source}/false_positives_by_trained"] = float(np.mean(trained >= self.threshold))
        return measured

    def by_photo(self) -> dict[str, float]:
        """How well each photo's object is found, 0 to 1: the confidence of its detection."""
        return {photo.name: photo.score for photo in self.photos}

    def agreement_by_photo(self) -> dict[str, float]:
        """The agreement on each photo that came with labels."""
        return {photo.name: photo.agreement for photo in self.photos if photo.agreement is not None}

    def write(self, path: Path) -> None:
        """Write a round's `evidence.json`, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Read it; without a file there is no evidence.

        Raises:
            UserError: it is damaged, or names an image outside the run folder.
        """
        if not path.is_file():
            return cls()
        values = read_json(path)
        try:
            photos = tuple(PhotoFinding(**value) for value in values["photos"])
            negatives = tuple(NegativeFinding(**value) for value in values["negatives"])
            for photo in photos:
                file_inside(path.parent.parent, photo.image)
                for labels in (photo.found, photo.outline):
                    Instances.from_json(labels or NO_LABELS)
            findings: list[PhotoFinding | NegativeFinding] = [*photos, *negatives]
            for finding in findings:
                _check_finding(finding)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged ({reason_of(error)}); restore it from a copy, or remove its round"
            ) from None
        return cls(photos, negatives)


def _midway(finding: PhotoFinding | NegativeFinding) -> float:
    return finding.score if finding.trained_score is None else (finding.score + finding.trained_score) / 2


def _trained_scores(findings: Sequence[PhotoFinding | NegativeFinding]) -> np.ndarray | None:
    """Each image's score by the round's checkpoint, trained on it or not; None where no fold judged any."""
    if all(one.trained_score is None for one in findings):
        return None
    return np.array([one.score if one.trained_score is None else one.trained_score for one in findings])


def _check_finding(finding: PhotoFinding | NegativeFinding) -> None:
    """Check that its values have the types that its class declares."""
    for name, kind in get_type_hints(type(finding)).items():
        value = getattr(finding, name)
        allowed = [get_origin(one) or one for one in (get_args(kind) if isinstance(kind, UnionType) else (kind,))]
        if not isinstance(value, (*allowed, int) if float in allowed else tuple(allowed)):
            raise ValueError(f"{name} is {str(value)[:20]!r}")


def judge_photo(found: Instances, outline: Instances, rare_ids: Sequence[int]) -> dict[str, Any]:
    """The score, IoU and false score of what was found on a photo, as `PhotoFinding` has them.

    Args:
        found: the detections.
        outline: the object's best outline and class: one instance, or none where nobody has one.
        rare_ids: class ids of the rare classes.
    """
    rare = found.subset(np.isin(found.class_ids, rare_ids))
    if not len(outline):
        return {"score": float(rare.scores.max(initial=0)), "iou": None, "false_score": 0.0}
    overlaps = mask_iou(rare.masks, outline.masks)[:, 0]
    inside = np.array([bool((mask & outline.masks[0]).any()) for mask in rare.masks], bool)
    at_place = (overlaps >= MIN_OVERLAP) & (rare.class_ids == outline.class_ids[0])
    elsewhere = float(rare.scores[~inside].max(initial=0))
    if not at_place.any():
        return {"score": 0.0, "iou": None, "false_score": elsewhere}
    best = int(np.argmax(np.where(at_place, rare.scores, -1)))
    return {"score": float(rare.scores[best]), "iou": float(overlaps[best]), "false_score": elsewhere}


def without_others(found: Instances, given: Instances, outline: Instances) -> Instances:
    """The detections without those of a photo's other objects.

    Args:
        found: the detections.
        given: all labels of the photo.
        outline: one of them, which is judged.
    """
    overlaps = mask_iou(found.masks, given.masks).max(axis=1, initial=0)
    here = mask_iou(found.masks, outline.masks).max(axis=1, initial=0)
    return found.subset((overlaps < MIN_OVERLAP) | (here == overlaps))


def f1_score(positives: Sequence[float], negatives: Sequence[float], threshold: float) -> float:
    """The F1 of calling everything an object that scores at least the threshold."""
    hits = sum(score >= threshold for score in positives)
    wrong = sum(score >= threshold for score in negatives)
    return 2 * hits / (hits + wrong + len(positives)) if positives else 0.0


def suggest_threshold(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The confidence threshold with the best F1: the middle of the widest range of thresholds that have it.

    Args:
        positives: confidences of what should be found, 0 for what was not found at all.
        negatives: confidences of what should not.

    Returns:
        In [0.1, 0.9], as a few photos are little evidence for more; 0.25 where nothing was found.
    """
    if not any(positives):
        return DEFAULT_THRESHOLD
    edges = sorted({0.0, *positives, *negatives})
    best = max(pairwise(edges), key=lambda ends: (f1_score(positives, negatives, ends[1]), ends[1] - ends[0]))
    return round(float(np.clip(sum(best) / 2, *_THRESHOLD_RANGE)), 3)


def f1_curve(positives: Sequence[float], negatives: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """(threshold, precision, recall, F1) at thresholds from 0.05 to 0.95."""
    points = []
    for threshold in np.arange(0.05, 0.951, 0.05):
        hits = sum(score >= threshold for score in positives)
        wrong = sum(score >= threshold for score in negatives)
        precision = hits / (hits + wrong) if hits + wrong else 1.0
        recall = hits / len(positives) if positives else 0.0
        points.append((float(threshold), precision, recall, f1_score(positives, negatives, float(threshold))))
    return points
