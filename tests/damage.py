"""Ways in which files get damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def empty(path: Path) -> None:
    """As a power cut leaves a file that was never flushed."""
    path.write_bytes(b"")


def halve(path: Path) -> None:
    """Cut off in the middle."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """A byte in the middle changes."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def delete(path: Path) -> None:
    """It is gone."""
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (empty, halve, flip, delete)
