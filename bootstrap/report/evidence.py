"""The report's first part: the user's photos as the detectors that had not seen them judged them, and the threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bootstrap.evidence import NO_LABELS, Evidence, PhotoFinding, f1_curve
from bootstrap.report.charts import Curve
from bootstrap.report.pictures import jpeg_uri
from bootstrap.run_folder import RunFolder
from diffugen.drawing import draw_instances, draw_outlines
from diffugen.images import read_image
from diffugen.instances import Instances

NUM_PHOTOS = 24
"""Most photos that are shown."""
NO_EVIDENCE = Evidence()


@dataclass(frozen=True)
class PhotoCard:
    """A photo with what was found on it.

    Attributes:
        name: its file name.
        outcome: "found" or "missed".
        text: the confidence, the agreement of masks, and who judged.
        picture: data URI.
    """

    name: str
    outcome: str
    text: str
    picture: str


def photo_cards(run: RunFolder, evidence: Evidence) -> list[PhotoCard]:
    """The photos of a round's evidence, the worst first: missed ones, then those with the lowest confidence."""
    at = evidence.threshold_for
    order = sorted(evidence.photos, key=lambda photo: (photo.score >= at(photo), photo.score, photo.iou or 0.0))
    return [_card(run, photo, at(photo)) for photo in order[:NUM_PHOTOS]]


def threshold_curve(evidence: Evidence) -> Curve | None:
    """Precision, recall and F1 by confidence threshold, with the suggested one; None without photos."""
    if not evidence.photos:
        return None
    points = f1_curve(*evidence.scores())
    series = {
        name: [(row[0], row[column]) for row in points] for column, name in ((1, "precision"), (2, "recall"), (3, "F1"))
    }
    return Curve(
        "precision, recall and F1 by confidence threshold: held-out photos, and images without the object",
        series,
        right=1.0,
        mark=evidence.judged_threshold,
    )


def _card(run: RunFolder, photo: PhotoFinding, threshold: float) -> PhotoCard:
    is_found = photo.score >= threshold
    found = Instances.from_json(photo.found or NO_LABELS)
    image = read_image(run.path / photo.image)
    drawn = draw_instances(image, found.subset(np.flatnonzero(found.scores >= threshold)))
    drawn = draw_outlines(drawn, Instances.from_json(photo.outline or NO_LABELS))
    agreement = "" if photo.iou is None else f", IoU {photo.iou:.2f} with the best outline"
    elsewhere = f", found elsewhere with {photo.false_score:.2f}" if photo.false_score >= threshold else ""
    judge = "the round's detector" if photo.judge == "checkpoint" else f"a detector without it ({photo.judge})"
    return PhotoCard(
        photo.name,
        "found" if is_found else "missed",
        f"confidence {photo.score:.2f}{agreement}{elsewhere}; judged by {judge}, threshold {threshold:.2f}",
        jpeg_uri(drawn),
    )
