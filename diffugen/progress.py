"""What a user sees of work that takes long: bars, and lines before the first of them.

All bars come from `bar`, so that each says which part of the whole it belongs to ("round 2/3: labelling").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_part: ContextVar[str] = ContextVar("part", default="")
_left: ContextVar[Callable[[], str]] = ContextVar("left", default=lambda: "")


def say(text: str) -> None:
    """Tell what goes on where no bar can: while something is loaded or checked. Goes to stderr, as bars do."""
    tqdm.write(_titled(text), file=sys.stderr)


def bar(things: Iterable[Any] | None = None, *, desc: str, unit: str, **options: Any) -> tqdm:
    """A progress bar.

    Args:
        things: what is iterated over; None: whoever asks calls `update`.
        desc: what is done, such as "labelling".
        unit: what is counted, such as "image".
        options: further ones of tqdm.
    """
    return tqdm(things, desc=_titled(desc), unit=unit, **options)


@contextmanager
def part(title: str) -> Iterator[None]:
    """Let all bars and lines of the block begin with a title, such as "round 2/3"."""
    token = _part.set(title)
    try:
        yield
    finally:
        _part.reset(token)


def _titled(text: str) -> str:
    return f"{_part.get()}: {text}" if _part.get() else text
