"""What is told about a round: attributes, flat metrics."""

from __future__ import annotations

from pathlib import Path

from bootstrap.measures.round import attributes_of
from diffugen.files import write_jsonl


def test_attributes_are_read_where_a_dataset_tells_them(tmp_path: Path) -> None:
    assert attributes_of(tmp_path) == {}
    rows = [{"name": "0", "caption": "a car", "attributes": {"time": "night"}}, {"name": "1", "caption": "a tent"}]
    write_jsonl(tmp_path / "captions.jsonl", rows)
    assert attributes_of(tmp_path) == {"0": {"time": "night"}}
