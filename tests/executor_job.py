"""Work for workers that can be told to die: files of a few bytes, no model."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffugen.errors import UserError
from diffugen.executor.base import Advance, Record, Shard, Work, shards_of
from diffugen.files import write_text


@dataclass(frozen=True)
class ToyJob:
    """Writes a file per item.

    Attributes:
        folder: gets files/ and deaths/.
        deaths: item -> how often it kills its worker.
        mistakes: item -> what a UserError says of it.
        errors: items that raise another error, each time.
        seconds: that an item takes.
        load_error: of a UserError while loading.
        setting: changes the identity.
    """

    folder: Path
    deaths: dict[int, int] = field(default_factory=dict)
    mistakes: dict[int, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    seconds: float = 0.0
    load_error: str = ""
    dies_loading: bool = False
    setting: str = ""

    def load(self) -> Work:
        if self.load_error:
            raise UserError(self.load_error)
        if self.dies_loading:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._work

    def _work(self, items: Sequence[int], advance: Advance) -> list[Record]:
        records = []
        for item in items:
            time.sleep(self.seconds)
            self._disturb(item)
            write_text(self.folder / "pids" / str(item), str(os.getpid()))  # first, so that a file tells who made it
            write_text(self.folder / "threads" / str(item), os.environ.get("OMP_NUM_THREADS", "all"))
            write_text(self.file(item), f"{item} {self.setting}\n" * 100)
            records.append({"item": item, "square": item * item})
            advance(1)
        return records

    def _disturb(self, item: int) -> None:
        if item in self.mistakes:
            raise UserError(self.mistakes[item])
        if item in self.errors:
            raise ZeroDivisionError(f"item {item}")
        died = self.folder / "deaths" / str(item)
        times = len(died.read_text()) if died.is_file() else 0
        if times < self.deaths.get(item, 0):
            write_text(died, "x" * (times + 1))
            os.kill(os.getpid(), signal.SIGKILL)

    def file(self, item: int) -> Path:
        return self.folder / "files" / f"{item:04d}.txt"

    def identity(self, items: Sequence[int]) -> Any:
        return [self.setting, list(items)]

    def folders(self) -> Sequence[Path]:
        return [self.folder / "files"]

    def has_files(self, items: Sequence[int]) -> bool:
        return all(self.file(item).is_file() for item in items)

    def title(self, item: int) -> str:
        return f"toy {item}"


def shards(num: int = 24, size: int = 4) -> list[Shard]:
    return shards_of(([number] for number in range(num)), size)


def squares(numbers: Iterable[int]) -> list[Record]:
    return [{"item": number, "square": number * number} for number in numbers]


def hash_of(folder: Path) -> str:
    """Of all names and bytes of a folder."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            hashed.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()
