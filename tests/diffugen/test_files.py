"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffugen.files import atomic_path, read_json, read_jsonl, write_json, write_jsonl, write_text


def test_json_and_jsonl_round_trip(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"text": "Flügel, \u2028 <grand-piano>", "n": 1},
        {"values": [0.1, None, True]},
    ]
    write_json(tmp_path / "deep" / "a.json", records)
    write_jsonl(tmp_path / "b.jsonl", records[1:])
    assert read_json(tmp_path / "deep" / "a.json") == records
    assert read_jsonl(tmp_path / "b.jsonl") == records[1:]


def test_jsonl_keeps_line_separators_inside_texts(tmp_path: Path) -> None:
    records = [{"text": "one\u2028two\u0085three\nfour"}, {"text": "five"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert read_jsonl(tmp_path / "a.jsonl") == records


def test_jsonl_without_records_is_empty(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [])
    assert read_jsonl(tmp_path / "a.jsonl") == []


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("disk")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_replaces_the_one_before(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_path(tmp_path / "data") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_leftover_of_a_killed_run_is_in_nobodys_way(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "data") as temporary:
        leftover = temporary
        temporary.mkdir()
    leftover.mkdir()
    (leftover / "old").write_text("half")
    with atomic_path(tmp_path / "data") as temporary:
        temporary.mkdir()
    assert list((tmp_path / "data").iterdir()) == []
    assert not leftover.exists()


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    """Image writers choose the format by it."""
    with atomic_path(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"")
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
