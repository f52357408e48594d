"""The pictures of a report: each sample's image, where attention looked, and what every labeler made of it."""

from __future__ import annotations

import base64
import bisect
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bootstrap.report.words import in_words
from bootstrap.run_folder import RoundFolder
from diffugen.attention.heatmaps import attention_of
from diffugen.drawing import draw_instances, heat_overlay
from diffugen.errors import UserError
from diffugen.images import list_images, read_image
from diffugen.sample import Sample, iter_samples

logger = logging.getLogger(__name__)

THUMBNAIL = 192
"""Longest side of a picture, pixels."""
NUM_OF_OUTCOME = {"review": 12, "reject": 12, "keep": 24}
"""Most samples of each outcome per round, in the page's order."""
GALLERY_BYTES = 3_000_000
"""Of all samples' pictures; a page of 5 MB is still one that people send each other."""
NUM_PHOTOS = 24
"""Most photos of a folder that are shown."""
SHEET = 1000
"""Longest side of a sheet of samples, pixels."""
NO_VALUE = "(none)"


@dataclass(frozen=True)
class Card:
    """One sample as the page shows it.

    Attributes:
        round_index, name, outcome, reason, labeler, prompt, agreement: the sample's.
        values: (slot, value) of the prompt's attributes, ("class", name) of its objects, and ("task", how it was made).
        pictures: (caption, data URI), the image first.
    """

    round_index: int
    name: str
    outcome: str
    reason: str
    labeler: str
    prompt: str
    agreement: float | None
    values: tuple[tuple[str, str], ...]
    pictures: tuple[tuple[str, str], ...]

    @property
    def filters(self) -> dict[str, list[str]]:
        """What the gallery is filtered by: slot -> values, the round among them."""
        found: dict[str, list[str]] = {"round": [str(self.round_index)]}
        for slot, value in self.values:
            found.setdefault(slot, []).append(value)
        return found


def gallery(folders: Sequence[RoundFolder]) -> list[Card]:
    """The most doubtful samples of rounds, up to a number of each outcome and to `GALLERY_BYTES` of pictures.

    Args:
        folders: the rounds, the one that matters most first.
    """
    shown: list[Card] = []
    size = 0
    for folder in folders:
        for card in cards(folder):
            size += sum(len(uri) for _, uri in card.pictures)
            if size > GALLERY_BYTES:
                return shown
            shown.append(card)
    return shown


def cards(folder: RoundFolder) -> list[Card]:
    """The samples of a labelled round that are shown: of each outcome those first on which labelers agree least.

    Of a round that is not complete those whose files cannot be read are left out: they will be made again.
    """
    if folder.complete:
        return _complete_cards(folder)
    found = []
    for sample in _chosen(folder):
        try:
            found.append(_card(sample, folder.index))
        except Exception as error:  # whatever a damaged file makes of its reader; a report stops no run
            logger.debug("the report leaves out %s: %s", sample.name, error)
    return found


@functools.cache
def _complete_cards(folder: RoundFolder) -> list[Card]:
    return [_card(sample, folder.index) for sample in _chosen(folder)]


def _chosen(folder: RoundFolder) -> list[Sample]:
    chosen: dict[str, list[Sample]] = {outcome: [] for outcome in NUM_OF_OUTCOME}
    for sample in iter_samples(folder.samples):
        best = chosen[sample.outcome]
        bisect.insort(best, sample, key=_certainty)
        del best[NUM_OF_OUTCOME[sample.outcome] :]
    return [sample for best in chosen.values() for sample in best]


def _certainty(sample: Sample) -> float:
    """How sure the labelers are of a sample: their agreement, else the lowest score."""
    return sample.agreement if sample.agreement is not None else min(sample.scores, default=0.0)


def max_heat(maps: Sequence[np.ndarray]) -> np.ndarray | None:
    """The maximum over heatmaps [h, w] of each one's share of its own peak; None if there are none."""
    shares = [values / max(float(values.max()), 1e-12) for values in maps]
    return np.max(shares, axis=0) if shares else None


def photo_uris(folder: Path) -> list[str]:
    """Thumbnails of a folder's photos; none, with a warning, where they are gone: the report can do without."""
    try:
        return [jpeg_uri(read_image(path)) for path in list_images(folder)[:NUM_PHOTOS]]
    except UserError as error:
        logger.warning("the report shows no photos: %s", error)
        return []


def sheet_uri(path: Path) -> str:
    """A sheet of samples or a chart as a data URI, shrunk where it is large."""
    return jpeg_uri(read_image(path), SHEET)


def _card(sample: Sample, round_index: int) -> Card:
    image = sample.pixels()
    # All phrases in one picture: where any of them is attended, each scaled to its own peak.
    heatmaps = attention_of(sample).heatmaps if sample.heatmap_path else ()
    heat = max_heat([heatmap.values for heatmap in heatmaps])
    pictures = [("image", image), *([("attention", heat_overlay(image, heat))] if heat is not None else [])]
    # What each of the two said before any filter: a rejected sample has labels that were thrown away for a reason.
    for labeler in ("attention", "detector"):
        if labeler in sample.encoded_labels:
            pictures.append((f"{labeler}'s mask", draw_instances(image, sample.labels(labeler))))
    if sample.labeler == "consensus":
        pictures.append(("what they hold", draw_instances(image, sample.instances)))
    attributes = [(slot, value or NO_VALUE) for slot, value in sample.prompt.attributes.items()]
    classes = list(dict.fromkeys(phrase.class_name for phrase in sample.prompt.objects)) or [NO_VALUE]
    return Card(
        round_index=round_index,
        name=sample.name,
        outcome=sample.outcome,
        reason=in_words(sample.reason),
        labeler=sample.labeler,
        prompt=sample.prompt.text,
        agreement=sample.agreement,
        values=(*(("class", name) for name in classes), ("task", sample.task), *attributes),
        pictures=tuple((caption, jpeg_uri(pixels)) for caption, pixels in pictures),
    )


def jpeg_uri(image: np.ndarray, longest: int = THUMBNAIL) -> str:
    """A uint8 RGB image as the data URI of a JPEG thumbnail."""
    scale = longest / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
