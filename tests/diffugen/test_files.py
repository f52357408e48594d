"""Files appear whole or not at all, and are on the disk before they appear."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from diffugen.files import atomic_path, is_full_disk, read_json, read_jsonl, write_json, write_jsonl, write_text


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


def test_a_folder_is_there_until_the_new_one_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails, or a kill between the two renames, leaves the old folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_text("old")

    def fail(source: Any, target: Any) -> None:
        assert not (tmp_path / "data").exists()
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken"):
        patch.setattr("os.replace", fail)
        with atomic_path(tmp_path / "data") as temporary:
            temporary.mkdir()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["data", "data/old"]

    (tmp_path / "data").rename(tmp_path / ".data.diffugen-old")  # as a kill leaves it
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "data"):
        raise RuntimeError
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["data", "data/old"]


def test_a_file_never_gives_way_to_a_folder_nor_a_folder_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    with pytest.raises(NotADirectoryError), atomic_path(tmp_path / "thesis") as temporary:
        temporary.mkdir()
    assert (tmp_path / "thesis").read_text() == "mine"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_text("old")
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "data") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "data" / "old").read_text() == "old"


@pytest.mark.parametrize("name", ["x" * 255, "x" * 251 + ".png", "é" * 127])
def test_names_may_be_as_long_as_a_file_system_allows(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "long")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    """Image writers choose the format by it."""
    with atomic_path(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"")
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


FULL = Path("/dev/full")
"""Linux has this device, which is always full."""


def write_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weights": torch.zeros(10_000)}, file)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, heatmap=np.zeros(10_000))


@pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full")
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("{}"),
        lambda path: Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path, format="PNG"),
        write_npz,
        write_torch,
    ],
    ids=["text", "pillow", "numpy", "torch"],
)
def test_a_full_disk_is_reported_with_the_path(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a") as temporary:
        temporary.symlink_to(FULL)
        write(temporary)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_errors_that_hide_a_full_disk_are_seen_through() -> None:
    assert is_full_disk(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    hidden = RuntimeError("unexpected pos")
    hidden.__context__ = OSError(errno.EDQUOT, "over quota")
    assert is_full_disk(hidden)
    assert not is_full_disk(OSError(errno.EIO, "broken"))


def test_names_that_are_not_utf8_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9/\xff")
    write_json(tmp_path / "a.json", {"photos": name})
    write_jsonl(tmp_path / "a.jsonl", [{"photos": name}])
    assert read_json(tmp_path / "a.json") == {"photos": name} == read_jsonl(tmp_path / "a.jsonl")[0]
