"""The decisions of a loop, from rows of metrics: who labels, what is promoted, when to stop. None reads the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bootstrap.config import RoundsConfig
from bootstrap.row import AGREEMENT, BASE_AGREEMENT, FOUND, IMAGE_AGREEMENT, Row, are_photos_alone, number

MIN_PHOTO_LOSS = 0.1
"""Loss of mean confidence on the photos that is too small to take a promotion back."""


def choose_labeler(best: Row | None, rules: RoundsConfig, *, has_photos: bool) -> tuple[str, str]:
    """Who labels a round: "attention" or "detector", and why.

    Args:
        best: the promoted round's row; None before there is one.
        rules: `switch_agreement` and `filter.by` apply.
        has_photos: whether there is a pool, whose photos the detector labels whatever decides about generated images.
    """
    min_agreement, spared = rules.switch_agreement, rules.filter.by == "attention"
    if best is None:
        return "attention", "there is no detector yet"
    if spared and not has_photos:
        return "attention", "rounds.filter.by says so, and there are no photos"
    agreement = number(best, AGREEMENT) or 0.0
    found = f"round {best['round']}'s detector agrees with attention on the validation images by {agreement:.3f}"
    share = number(best, FOUND)
    if share is not None and share < min_agreement:
        on = f"round {best['round']}'s detector finds the object on {share:.0%} of the held-out photos"
        return "attention", f"{on}, less than {min_agreement:.0%}"
    if agreement >= min_agreement:
        photos_only = "; generated images keep attention's labels (rounds.filter.by)" if spared else ""
        return "detector", f"{found}, at least {min_agreement:g}{photos_only}"
    return "attention", f"{found}, less than {min_agreement:g}"


def choose_labeler_of_photos(best: int | None, *, has_given: bool) -> tuple[str, str]:
    """Who labels a round where the images are photographs alone: "detector" or "given", and why.

    Args:
        best: the promoted round; None before there is one.
        has_given: whether photos came with labels.
    """
    if best is not None:
        return "detector", f"round {best}'s detector labels the photos"
    if has_given:
        return "given", "the first detector learns from the labels that came with photos"
    return "detector", "no round has a detector yet, so the base detector or Mask2Former labels the photos"


def decide_promotion(
    agreement: Mapping[str, float], promoted: Mapping[int, Mapping[str, float]], *, allow_chance: bool = True
) -> dict[str, bool | str]:
    """Promote a checkpoint unless it is worse than the best promoted one by more than the standard error.

    Both labelled the same frozen validation images, so they are compared image by image. A checkpoint is rolled back if
    its mean agreement is lower by more than the standard error of the mean difference. It is compared with the best and
    not the latest one, so that many small losses, each within chance, do not add up. Agreement is with attention's
    labels, the only ones that do not depend on any checkpoint. It detects drift; it does not tell the finer of two
    outlines.

    Args:
        agreement: by validation image, the mean IoU of the candidate's labels with attention's.
        promoted: the same of the promoted rounds' checkpoints, by round; at least one, see `decide_first`.
        allow_chance: whether a loss within the standard error may be chance. Where the detector's own labels are all
            that is new, later rounds seldom make it good, and no loss is taken.
    """
    best = max(promoted, key=lambda index: (np.mean(list(promoted[index].values())), index))
    gains = np.array([agreement[name] - promoted[best][name] for name in sorted(agreement)])
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    kept = bool(gains.mean() >= (-error if allow_chance else 0.0))
    relation = ("better than" if gains.mean() > 0 else "no worse than") if kept else "worse than"
    why = (
        f"on {len(gains)} validation images its labels are {relation} round {best}'s "
        f"(IoU {gains.mean():+.3f}, standard error {error:.3f})"
    )
    return {"promoted": kept, "why": why}


def decide_first(scores: Mapping[str, float]) -> dict[str, bool | str]:
    """Whether the first checkpoint is any good, where the base detector alone says what photographs show.

    Args:
        scores: on the validation photos, how far its labels, and the base detector's of their mirror images, agree with
            the labels that they have (`IMAGE_AGREEMENT`, `BASE_AGREEMENT`); without the latter it is promoted.
    """
    own, base = scores[IMAGE_AGREEMENT], scores.get(BASE_AGREEMENT, 0.0)
    if own >= base:
        return {"promoted": True, "why": "the first checkpoint"}
    why = (
        f"its labels of the validation photos agree with the base detector's by {own:.2f} (IoU), its own of the "
        f"mirrored photos by {base:.2f}: nothing shows that it is as good"
    )
    return {"promoted": False, "why": why}


def decide_by_photos(
    decision: Mapping[str, bool | str], found: Mapping[str, float], promoted: Mapping[int, Mapping[str, float]]
) -> dict[str, bool | str]:
    """Take a promotion back where the candidate finds the object on the user's photos clearly less well.

    Args:
        decision: what `decide_promotion` says, a promotion.
        found: by photo, the confidence with which detectors of the candidate's round, not trained on it, find the
            object; 0 where they miss it.
        promoted: the same of the promoted rounds.
    """
    if not promoted or not found:
        return dict(decision)
    best = max(promoted, key=lambda index: (np.mean(list(promoted[index].values())), index))
    gains = np.array([found[name] - promoted[best].get(name, 0.0) for name in sorted(found)])
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    if gains.mean() >= -max(error, MIN_PHOTO_LOSS):
        return dict(decision)
    why = (
        f"on {len(gains)} held-out photos it finds the object less surely than round {best} "
        f"(confidence {gains.mean():+.3f}, standard error {error:.3f})"
    )
    return {"promoted": False, "why": why}


def stop_reason(rows: Sequence[Row], patience: int, *, has_corrections: bool = False) -> str:
    """Why no further round is worth its time, or an empty string.

    Args:
        rows: the complete rounds' rows.
        patience: rounds in a row that may be rolled back.
        has_corrections: whether a person corrected labels, from which the next round learns.
    """
    alone = are_photos_alone(rows[0]) and rows[0]["labels_from"] == "detector"
    if alone and not has_corrections and not any(row["promoted"] for row in rows):
        return "the base detector would label the same photos again, and what it taught is not promoted"
    if len(rows) >= patience and all(number(row, FOUND) == 0 for row in rows[-patience:]):
        return f"after {patience} round{'s' * (patience > 1)} in a row the object was found on none of the photos"
    if len(rows) <= patience or any(row["promoted"] for row in rows[-patience:]):
        return ""
    return f"{patience} rounds in a row were rolled back" if patience > 1 else "the last round was rolled back"
