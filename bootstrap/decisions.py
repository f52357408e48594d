"""The decisions of a loop, from rows of metrics: who labels, what is promoted, when to stop. None reads the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SCORE = "val/mean/mask_map50_95"
"""What checkpoints are compared by: the mean over all classes, so that a rare class is not bought with a common one."""

AGREEMENT = "val/label_agreement"
"""Mean IoU of a checkpoint's labels of the validation images with attention's, a missed object counting 0."""


def choose_labeler(best: Mapping[str, Any] | None, min_agreement: float) -> tuple[str, str]:
    """Who labels a round: "attention" or "detector", and why.

    Args:
        best: the promoted round's row; None before there is one.
        min_agreement: `rounds.switch_agreement`.
    """
    if best is None:
        return "attention", "there is no detector yet"
    seen = f"round {best['round']}'s detector agrees with attention on the validation images by {best[AGREEMENT]:.3f}"
    if best[AGREEMENT] >= min_agreement:
        return "detector", f"{seen}, at least {min_agreement:g}"
    return "attention", f"{seen}, less than {min_agreement:g}"


def decide_promotion(scores: Mapping[str, float], best: Mapping[str, Any] | None) -> dict[str, Any]:
    """Promote a checkpoint if it is no worse than the promoted one on the frozen validation split.

    Args:
        scores: the candidate's, with `SCORE`.
        best: the promoted checkpoint's row of metrics; None if there is none yet.
    """
    if best is None:
        return {"promoted": True, "why": "the first checkpoint", **scores}
    promoted = scores[SCORE] >= best[SCORE]
    relation = "no worse than" if promoted else "worse than"
    why = f"validation mask mAP50-95 {scores[SCORE]:.3f} is {relation} round {best['round']}'s {best[SCORE]:.3f}"
    return {"promoted": promoted, "why": why, **scores}


def stop_reason(rows: Sequence[Mapping[str, Any]], patience: int) -> str:
    """Why no further round is worth its time, or an empty string.

    Args:
        rows: the complete rounds' rows.
        patience: rounds in a row that may be rolled back.
    """
    if len(rows) <= patience or any(row["promoted"] for row in rows[-patience:]):
        return ""
    return f"{patience} rounds in a row were rolled back" if patience > 1 else "the last round was rolled back"
