"""Reasons as people say them."""

from __future__ import annotations

import pytest

from bootstrap.report.words import in_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("low_score:car", "attention sees car too faintly"),
        ("low_iou:grand-piano", "attention places grand-piano elsewhere than the detector"),
        ("detector_too_many:car", "the detector sees too many car"),
        ("flipped_low_iou:car", "the detector on the mirrored image places car elsewhere than the detector"),
        ("mask2former_too_few:car", "Mask2Former sees too few car"),
        ("its pixels are all the same", "its pixels are all the same"),
        ("", ""),
    ],
)
def test_reasons_are_said_in_words(reason: str, words: str) -> None:
    assert in_words(reason) == words
