"""Why an image was not kept, in words: `low_iou:car` is for programs."""

from __future__ import annotations

import html
import re

from bootstrap.disagreement import FOLD, NOTHING_FOUND
from bootstrap.doubtful import MOSTLY_DOUBTFUL

_REASONS = {
    "too_few": "sees too few {name}",
    "too_many": "sees too many {name}",
    "low_score": "sees {name} too faintly",
    "low_iou": "places {name} elsewhere than the detector",
}
_WHOLE = {NOTHING_FOUND: "the detector finds nothing", MOSTLY_DOUBTFUL: "labelers disagree about most of the photo"}
_LABELERS = {
    "detector": "the detector",
    "flipped": "the detector on the mirrored image",
    "previous": "the previous detector",
    "mask2former": "Mask2Former",
}


def in_words(reason: str) -> str:
    """A sample's reason as people say it: "flipped_low_iou:car" is "the detector on the mirrored image places car
    elsewhere than the detector"; what is no such key stays as it is."""
    if reason in _WHOLE:
        return _WHOLE[reason]
    kind, _, name = reason.partition(":")
    labeler, _, rest = kind.partition("_")
    who = "a detector trained without some of your photos" if labeler.startswith(FOLD) else _LABELERS.get(labeler)
    if who is not None and rest in _REASONS:
        kind = rest
    else:
        who = "attention"
    return f"{who} {_REASONS[kind].format(name=name)}" if kind in _REASONS and name else reason


def with_code(text: str) -> str:
    """A sentence as HTML: what stands between backticks, such as a command or a setting, is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
