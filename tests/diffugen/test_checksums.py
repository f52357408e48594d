"""Damaged files are told from intact ones, wherever the damage is."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import DAMAGES

from diffugen.checksums import Sums, files_in, is_intact, read_sealed, write_sealed
from diffugen.errors import UserError
from diffugen.images import write_png

RECORDS = [{"text": "Flügel\u2028<grand-piano>"}, {"numbers": [1, 2.5, None]}, {}]


def test_a_damaged_png_is_found_whichever_byte_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    content = path.read_bytes()
    assert is_intact(path)
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert not is_intact(path), position
        path.write_bytes(content[:position])
        assert not is_intact(path), position
    path.write_bytes(content + b"more")
    assert not is_intact(path)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, values=np.arange(40, dtype=np.float32))


def write_torch(path: Path) -> None:
    torch.save({"step": 3, "rows": torch.arange(40.0)}, path)


@pytest.mark.parametrize("write", [write_npz, write_torch])
def test_a_damaged_archive_is_found_or_has_the_same_content(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / ("a.npz" if write is write_npz else "a.ckpt")
    write(path)
    content = path.read_bytes()
    assert is_intact(path)
    before = contents_of(path)
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert not is_intact(path) or contents_of(path) == before, position
    for length in range(0, len(content), 61):
        path.write_bytes(content[:length])
        assert not is_intact(path), length


def contents_of(path: Path) -> list[bytes]:
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.ckpt"])
def test_a_missing_file_is_not_intact(name: str, tmp_path: Path) -> None:
    assert not is_intact(tmp_path / name)


@pytest.mark.parametrize("records", [RECORDS, []])
def test_sealed_lines_come_back(records: list[dict], tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.jsonl", records)
    assert read_sealed(tmp_path / "a.jsonl") == records


def test_a_seal_breaks_whichever_byte_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_sealed(path, RECORDS)
    content = path.read_bytes()
    for position in range(len(content) - 1):  # the last is the end of the line
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(UserError, match=r"a\.jsonl is damaged"):
            read_sealed(path)
        path.write_bytes(content[:position])
        with pytest.raises(UserError, match=r"a\.jsonl is damaged"):
            read_sealed(path)


def test_whole_lines_are_missed_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_sealed(path, RECORDS)
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    for number in range(len(lines)):
        path.write_text("\n".join(lines[:number] + lines[number + 1 :]) + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"a\.jsonl is damaged"):
            read_sealed(path)
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))  # of an earlier version
    with pytest.raises(UserError, match=r"a\.jsonl is damaged"):
        read_sealed(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_sums_name_what_changed(damage: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("a", "deep/b", "deep/labels.cache"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    os.link(tmp_path / "a", tmp_path / "deep" / "link")
    known = Sums().of_all([tmp_path / "a", tmp_path / "deep"], tmp_path)
    assert (
        list(known) == ["a", "deep/b", "deep/link"] == [str(file.relative_to(tmp_path)) for file in files_in(tmp_path)]
    )
    assert not Sums().first_trouble(tmp_path, known)
    damage(tmp_path / "deep" / "b")
    trouble = "is missing" if damage.__name__ == "delete" else "is corrupt"
    assert Sums().first_trouble(tmp_path, known) == f"{tmp_path / 'deep' / 'b'} {trouble}"
