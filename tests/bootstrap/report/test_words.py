"""Reasons as people say them."""

from __future__ import annotations

import pytest

from bootstrap.report.words import in_words, with_code


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("low_score:car", "attention sees car too faintly"),
        ("mostly_doubtful", "labelers disagree about most of the photo"),
        ("low_iou:grand-piano", "attention places grand-piano elsewhere than the detector"),
        ("detector_too_many:car", "the detector sees too many car"),
        ("flipped_low_iou:car", "the detector on the mirrored image places car elsewhere than the detector"),
        ("fold1_too_few:car", "a detector trained without some of your photos sees too few car"),
        ("mask2former_too_few:car", "Mask2Former sees too few car"),
        ("its pixels are all the same", "its pixels are all the same"),
        ("", ""),
    ],
)
def test_reasons_are_said_in_words(reason: str, words: str) -> None:
    assert in_words(reason) == words


def test_commands_are_set_as_code_and_the_rest_is_escaped() -> None:
    assert with_code("Lower `--conf` & see <why>.") == "Lower <code>--conf</code> &amp; see &lt;why&gt;."
