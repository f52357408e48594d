"""What a run calls finished is on the disk: files are flushed, then renamed, then their folder is flushed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from disk_events import DiskEvent, inode, recording
from loop_run import RecordedLoop

from diffugen.files import atomic_path, write_files, write_json
from diffugen.images import write_png

SCRATCH = ("finetune", ".lock")
"""What is removed once it was used, or says nothing about other files."""


def check_order(events: list[DiskEvent], root: Path) -> None:
    """Each rename to a place in a folder came after all that it moved was flushed, and before its folder was."""
    for number, event in enumerate(events):
        if event.target is None or not event.target.is_relative_to(root) or event.target.name.endswith("-old"):
            continue
        if set(event.target.relative_to(root).parts) & set(SCRATCH):
            continue
        before = {other.flushed for other in events[:number]}
        after = {other.flushed for other in events[number:]}
        assert event.moved <= before, f"{event.target} was renamed before it was flushed"
        assert event.folder in after, f"the folder of {event.target} was not flushed"


def test_a_run_flushes_then_renames_then_flushes_the_folder(recorded_loop: RecordedLoop) -> None:
    run, events = recorded_loop.run, recorded_loop.events
    check_order(events, run.path)
    names = {event.target.name for event in events if event.target}
    assert {"batch_000000.jsonl", "samples.jsonl", "dataset", "best.pt", "metrics.json", "report.html"} <= names


def test_every_file_of_a_run_was_renamed_into_its_place(recorded_loop: RecordedLoop) -> None:
    run, events = recorded_loop.run, recorded_loop.events
    moved = frozenset[tuple[int, int]]().union(*(event.moved for event in events))
    files = [path for path in run.path.rglob("*") if path.is_file() and path.suffix != ".cache"]
    assert not [path for path in files if inode(path) not in moved and path.name not in SCRATCH]


def test_one_file_and_one_folder(tmp_path: Path) -> None:
    with recording() as events:
        write_json(tmp_path / "deep" / "er" / "a.json", {})
        with atomic_path(tmp_path / "folder") as folder:
            write_json(folder / "inside" / "a.json", {})
            write_png(folder / "inside" / "b.png", np.zeros((4, 5), np.uint8))
    check_order(events, tmp_path)
    assert [event.target.name for event in events if event.target] == ["a.json", "folder"]  # no renames within it
    new = {inode(tmp_path / name) for name in (".", "deep", "deep/er", "folder/inside", "folder")}
    assert new <= {event.flushed for event in events}


def test_files_that_are_written_together(tmp_path: Path) -> None:
    with recording() as events:
        write_files({tmp_path / str(number): b"content" for number in range(20)})
    check_order(events, tmp_path)
    first = next(number for number, event in enumerate(events) if event.target)
    assert all(event.target for event in events[first : first + 20])
    assert [event.flushed for event in events[first + 20 :]] == [inode(tmp_path)]


def test_a_file_that_cannot_be_flushed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems tell only then that the disk is full."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError) as caught:
        write_json(tmp_path / "a.json", {})
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
