"""A layer over the file system that notes what is flushed to the disk and what is renamed, in which order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _pytest.monkeypatch import MonkeyPatch

Inode = tuple[int, int]


@dataclass(frozen=True)
class DiskEvent:
    """A flush of one file or folder, or a rename.

    Attributes:
        flushed: what was flushed.
        target: where something was renamed to.
        moved: what was renamed: a file, or a folder with all that is in it.
        folder: the folder that has the new name.
    """

    flushed: Inode | None = None
    target: Path | None = None
    moved: frozenset[Inode] = field(default=frozenset())
    folder: Inode | None = None


def inode(path: str | os.PathLike[str] | int) -> Inode:
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextmanager
def recording() -> Iterator[list[DiskEvent]]:
    """Note all events of this process within the block."""
    events: list[DiskEvent] = []

    def fsync(descriptor: int) -> None:
        events.append(DiskEvent(flushed=inode(descriptor)))

    def noting(rename: Any) -> Any:
        def renamed(source: Any, target: Any, **options: Any) -> None:
            tree = [os.path.join(folder, name) for folder, _, files in os.walk(source) for name in files]
            moved = frozenset(inode(path) for path in [*tree, source] if os.path.exists(path))
            rename(source, target, **options)
            events.append(DiskEvent(target=Path(target), moved=moved, folder=inode(Path(target).parent)))

        return renamed

    with MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "replace", noting(os.replace))
        patch.setattr(os, "rename", noting(os.rename))
        yield events
