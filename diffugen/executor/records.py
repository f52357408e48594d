"""The records of shards: one file each, written by the worker that made the shard, after all other files of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffugen.checksums import read_sealed, write_sealed
from diffugen.errors import UserError
from diffugen.executor.base import Advance, Job, Record, Shard, Task, Work


def record_path(folder: Path, shard: Shard) -> Path:
    """Where a shard's records are."""
    return folder / f"{shard.name}.jsonl"


def make_shard(task: Task, work: Work, shard: Shard, advance: Advance) -> None:
    """Make a shard's files, then write its records."""
    records = work(shard.items, advance)
    if len(records) != len(shard.items):
        raise ValueError(f"shard {shard.name}: {len(records)} records of {len(shard.items)} items")
    header = {"identity": fingerprint(task.job, shard.items), "num": len(records)}
    write_sealed(record_path(task.folder, shard), [header, *records])


def read_records(task: Task, shard: Shard) -> list[Record] | None:
    """A shard's records, one per item; None where it is not made yet, lacks a file or was made by other settings."""
    try:
        header, *records = read_sealed(record_path(task.folder, shard))
    except (FileNotFoundError, UserError, ValueError):  # a damaged file is written again
        return None
    same = header == {"identity": fingerprint(task.job, shard.items), "num": len(records)}
    return records if same and task.job.has_files(shard.items) else None


def fingerprint(job: Job, items: Sequence[Any]) -> str:
    """A hash of all that the records of items follow from."""
    text = json.dumps([type(job).__name__, job.identity(items)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
