"""What a user sees of work that takes long: bars, and lines before the first of them.

All bars come from `progress_bar`, so that each says which part of the whole it belongs to ("round 2/3: labelling").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm as Bar

LOG_INTERVAL = 30.0
"""Seconds between two states of a bar where nobody watches it."""

_part: ContextVar[str] = ContextVar("part", default="")


def say(text: str) -> None:
    """Print what is being done where no bar can: while something is loaded or checked. Goes to stderr, as bars do."""
    Bar.write(_titled(text), file=sys.stderr)


def progress_bar(things: Iterable[Any] | None = None, *, desc: str, unit: str = "it", **options: Any) -> Bar:
    """A progress bar of tqdm's.

    Args:
        things: what is iterated over; None: whoever asks calls `update`.
        desc: what is done, such as "labelling".
        unit: what is counted, such as "image".
        options: as for tqdm.
    """
    if not sys.stderr.isatty():  # a log file needs no line for every tenth of a second
        options.setdefault("mininterval", LOG_INTERVAL)
    return Bar(things, desc=_titled(desc), unit=unit, **options)


@contextmanager
def part(title: str) -> Iterator[None]:
    """Let all bars and lines of the block begin with a title, such as "round 2/3"."""
    token = _part.set(title)
    try:
        yield
    finally:
        _part.reset(token)


@contextmanager
def subpart(title: str) -> Iterator[None]:
    """Like `part`, within one: "round 2/3: judging photos 1/3"."""
    with part(_titled(title)):
        yield


RatesListener = Callable[[str, Mapping[str, float]], None]
_listener: ContextVar[RatesListener | None] = ContextVar("listener", default=None)


@contextmanager
def rates_go_to(listener: RatesListener) -> Iterator[None]:
    """Let what `report_rates` reports in the block go to a function as well, such as one that logs it."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_rates(desc: str, rates: Mapping[str, float]) -> None:
    """Report images per second of each worker; `desc` is that of the bar."""
    if (listener := _listener.get()) is not None:
        listener(desc, rates)


def _titled(text: str) -> str:
    return ": ".join(filter(None, (_part.get(), text)))
