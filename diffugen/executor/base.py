"""What is worked on in shards, by whom, and what workers report.

A shard is a run of consecutive items. A job turns each item into files and one JSON record. Workers write the files,
then the shard's records; no two of them share a file. A shard that is made twice gives the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Record = dict[str, Any]
"""What a job says about an item, as JSON."""


class Advance(Protocol):
    """Called with the number of items that were finished since the last call."""

    def __call__(self, num: int, *, made: bool = True) -> None:
        """`made` is False for items that were there already."""
        ...


Work = Callable[[Sequence[Any], Advance], list[Record]]
"""Makes the files of a shard's items and returns a record for each, in their order."""


@dataclass(frozen=True)
class Shard:
    """Consecutive items.

    Attributes:
        first: number of the first item.
        items: picklable; what a job needs to know of each.
    """

    first: int
    items: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The numbers of its first and last item, such as "0000064-0000127"."""
        return f"{self.first:07d}-{self.first + len(self.items) - 1:07d}"


class Job(Protocol):
    """Work that any process can do: an instance is pickled, so it has paths and settings alone."""

    def load(self) -> Work:
        """Load the models, once in each worker.

        Raises:
            UserError: a model cannot be loaded.
        """
        ...

    def identity(self, items: Sequence[Any]) -> Any:
        """JSON of all that the records of these items follow from; records of another identity are made again."""
        ...

    def folders(self) -> Sequence[Path]:
        """Where its files are."""
        ...

    def has_files(self, items: Sequence[Any]) -> bool:
        """Whether all files of these items are there."""
        ...

    def title(self, item: Any) -> str:
        """What messages call an item: the name of its file, say."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a worker's shard is.

    Attributes:
        finished: items.
        made: those of them that were not there already.
    """

    finished: int = 0
    made: int = 0

    def after(self, num: int, *, made: bool) -> Progress:
        """It, after further items."""
        return Progress(self.finished + num, self.made + num * made)


@dataclass(frozen=True)
class Event:
    """What happened to a worker.

    Attributes:
        slot: number of the worker, from 0.
        kind: "ready": its models are loaded; "progress": `value` is a `Progress`; "done": its shard is finished;
            "refused": a mistake of the user's, in one sentence; "died": it is gone, and `value` says how.
        value: see kind.
    """

    slot: int
    kind: Literal["ready", "progress", "done", "refused", "died"]
    value: Any = None


class Pool(Protocol):
    """Workers, by the numbers of their slots."""

    size: int

    def start(self, slot: int) -> None:
        """Start a worker; "ready" is reported when its models are loaded."""
        ...

    def submit(self, slot: int, shard: Shard) -> None:
        """Give a shard to a worker that has none."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """What happened, after at most so many seconds."""
        ...

    def close(self) -> None:
        """Stop all workers at once; what they have not finished is lost."""
        ...


@dataclass(frozen=True)
class Task:
    """A job with the folder of its records: what every worker is given."""

    job: Job
    folder: Path


def shards_of(batches: Iterable[Sequence[Any]], shard_size: int) -> list[Shard]:
    """Put whole batches into shards of at most `shard_size` items (or of one batch, where that has more).

    Batches follow from the items alone, so they are the same for any number of workers.
    """
    shards: list[Shard] = []
    first, items = 0, list[Any]()
    for batch in batches:
        if items and len(items) + len(batch) > shard_size:
            shards.append(Shard(first, tuple(items)))
            first, items = first + len(items), []
        items.extend(batch)
    return [*shards, Shard(first, tuple(items))] if items else shards
