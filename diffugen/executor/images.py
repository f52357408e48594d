"""Objects on image files, found by several workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.checksums import files_in
from diffugen.config.executor import ExecutorConfig
from diffugen.errors import UserError
from diffugen.executor.base import Advance, Record, Work, shards_of
from diffugen.executor.run import discard_records, run_job
from diffugen.images import read_image
from diffugen.instances import Instances

Find = Callable[[list[np.ndarray]], list[Instances]]
"""From images uint8 [H, W, 3] to the instances of each."""


@dataclass(frozen=True)
class ImageJob:
    """Finds objects on images; an item is a path, and its record has `instances`, or says why it cannot be read.

    Attributes:
        load_find: picklable; loads the models.
        settings: JSON of all that the instances follow from, besides the images.
        inputs: files and folders of the models.
        batch_size: images that are looked at together.
    """

    load_find: Callable[[], Find]
    settings: Any
    inputs: tuple[Path, ...]
    batch_size: int = 1

    def load(self) -> Work:
        """Load the models."""
        find = self.load_find()

        def work(items: Sequence[Path], advance: Advance) -> list[Record]:
            records: list[Record] = []
            for batch in batched(items, self.batch_size):
                results = [_read(path) for path in batch]
                images = [image for image in results if isinstance(image, np.ndarray)]
                found = iter(find(images) if images else [])
                records += [{"unreadable": one} if isinstance(one, str) else _record(next(found)) for one in results]
                advance(len(batch))
            return records

        return work

    def identity(self, items: Sequence[Path]) -> Any:
        """The settings, and the state of all files."""
        return [self.settings, [_state(path) for path in (*self.inputs, *items)]]

    def folders(self) -> Sequence[Path]:
        """It has no files but its records."""
        return []

    def has_files(self, items: Sequence[Path]) -> bool:
        """It has none."""
        return True

    def title(self, item: Path) -> str:
        """The file's path."""
        return str(item)


@dataclass(frozen=True)
class Workers:
    """Who finds the objects on images, and how.

    Attributes:
        executor: the workers.
        job: what they do.
        device: where the models run.
    """

    executor: ExecutorConfig
    job: ImageJob
    device: str

    def find(self, paths: Sequence[Path], out: Path, desc: str) -> Iterator[Instances | UserError]:
        """The instances on each image, in their order; what is wrong with one that cannot be read.

        Records stay beside `out` until `done`, so that a run that was stopped resumes.
        """
        shards = shards_of(batched([path.resolve() for path in paths], self.job.batch_size), self.executor.shard_size)
        for record in run_job(self.job, shards, _beside(out), self.executor, desc=desc, device=self.device):
            if "unreadable" in record:
                yield UserError(record["unreadable"])
            else:
                found = Instances.from_json(record["instances"])
                exact = {name: np.array(record[name], np.float32) for name in ("scores", "xyxy")}
                yield replace(found, scores=exact["scores"], xyxy=exact["xyxy"].reshape(-1, 4))

    def done(self, out: Path) -> None:
        """Remove the records, once `out` is written."""
        discard_records(_beside(out))


def _record(instances: Instances) -> Record:
    """Also the detector's own boxes, and scores before they are rounded."""
    exact = {"scores": instances.scores.tolist(), "xyxy": instances.xyxy.tolist()}
    return {"instances": instances.to_json(), **exact}


def batched(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Consecutive items, so many at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.shards")


def _read(path: Path) -> np.ndarray | str:
    try:
        return read_image(path)
    except UserError as error:
        return str(error)


def _state(path: Path) -> list[Any]:
    """The size of a file and when it was changed; of a folder those of all files in it."""
    try:
        status = os.stat(path)
    except OSError:
        return [str(path), None]
    if path.is_dir():
        return [str(path), [_state(file) for file in files_in(path)]]
    return [str(path), status.st_size, status.st_mtime_ns]
