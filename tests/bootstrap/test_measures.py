"""What is told about a round: words for attention on real images, attributes, flat metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.measures import attributes_of, plain_words
from diffugen.files import write_jsonl


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        (["red car", "blue car"], "car"),
        (["red <grand-piano>", "a big blue <grand-piano>"], "<grand-piano>"),
        (["old steam engine", "steam engine"], "steam engine"),
        (["racing car"], "racing car"),
        (["automobile", "red car"], "automobile"),
    ],
)
def test_the_plain_words_of_a_class_are_what_its_phrases_share(phrases: list[str], words: str) -> None:
    assert plain_words(phrases) == words


def test_attributes_are_read_where_a_dataset_tells_them(tmp_path: Path) -> None:
    assert attributes_of(tmp_path) == {}
    rows = [{"name": "0", "caption": "a car", "attributes": {"time": "night"}}, {"name": "1", "caption": "a tent"}]
    write_jsonl(tmp_path / "captions.jsonl", rows)
    assert attributes_of(tmp_path) == {"0": {"time": "night"}}
