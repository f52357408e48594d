"""Fine-tuning the detectors of a round: one after another, or at the same time by the workers of `executor`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bootstrap.checksums import note_finished
from bootstrap.config import LoopConfig
from bootstrap.context import RoundContext
from diffugen.config.executor import ExecutorConfig
from diffugen.config.settings import DetectorConfig
from diffugen.detector.training import finetune
from diffugen.executor.base import Advance, Record, Work, shards_of
from diffugen.executor.local_pool import local_room
from diffugen.executor.run import discard_records, run_job
from diffugen.files import sha256_of
from diffugen.progress import subpart


@dataclass(frozen=True)
class FineTune:
    """A detector to be made: the arguments of `finetune`.

    Attributes:
        start: the checkpoint that it is fine-tuned from; None: the base.
        title: what bars say before "fine-tuning", such as "judging photos 1/3"; empty: nothing.
        dataset: folder of the dataset.
        weights: the checkpoint that it becomes.
        workdir: scratch folder.
    """

    title: str
    base: Path
    dataset: Path
    weights: Path
    settings: DetectorConfig
    seed: int
    workdir: Path
    class_map: Mapping[str, Sequence[str]] | None = None
    start: Path | None = None

    def make(self, *, progress: bool = True) -> None:
        """Fine-tune it."""
        finetune(
            self.base,
            self.dataset / "data.yaml",
            self.weights,
            self.settings,
            seed=self.seed,
            workdir=self.workdir,
            class_map=self.class_map,
            start=self.start,
            progress=progress,
        )
        shutil.rmtree(self.workdir, ignore_errors=True)  # it has copies of images


def fine_tune_all(context: RoundContext, wanted: Sequence[FineTune]) -> None:
    """Make the detectors of a round that are not there yet, and note each that is finished.

    Workers make several at the same time, but not where `detector.device` names the GPUs.

    Args:
        context: the round's.
        wanted: all detectors of the round, those that are there included. Their number decides who makes them: a run
            that resumes with one left has it made as it would have been.
    """
    missing = [one for one in wanted if not one.weights.is_file()]
    executor = detector_executor(context.config)
    if executor is None or len(wanted) < 2:
        for one in missing:
            with subpart(one.title):
                one.make()
            note_finished(context.folder, one.weights)
    else:
        _by_workers(context, executor, missing)
    shutil.rmtree(context.folder.scratch, ignore_errors=True)


def detector_executor(config: LoopConfig) -> ExecutorConfig | None:
    """Who fine-tunes several detectors; None: this process.

    Raises:
        UserError: this machine has no room for so many workers.
    """
    executor, device = config.executor, config.detector.device
    if executor is None or device not in ("auto", "cpu"):
        return None
    if device == "cpu":  # the share is meant for the workers that generate
        executor = executor.model_copy(update={"gpus_per_worker": None})
    if executor.kind == "local":
        local_room(executor, device)
    return executor


def _by_workers(context: RoundContext, executor: ExecutorConfig, missing: Sequence[FineTune]) -> None:
    folder = context.folder
    records = run_job(
        FineTuneJob(folder.path),
        shards_of([[one] for one in missing], 1),
        folder.shards / "detectors",
        executor,
        desc="fine-tuning",
        device=context.config.detector.device,
        unit="detector",
        on_done=lambda shard: note_finished(folder, shard.items[0].weights),
    )
    list(records)  # of no further use
    discard_records(folder.shards)


@dataclass(frozen=True)
class FineTuneJob:
    """Makes detectors; an item is a `FineTune`, its record the checkpoint's name.

    Attributes:
        folder: the round's.
    """

    folder: Path

    def load(self) -> Work:
        """Each has a base of its own."""

        def work(items: Sequence[FineTune], advance: Advance) -> list[Record]:
            for one in items:
                if not one.weights.is_file():  # a worker may have ended between a checkpoint and its record
                    one.make(progress=False)
                advance(1)
            return [{"weights": one.weights.name} for one in items]

        return work

    def identity(self, items: Sequence[FineTune]) -> Any:
        """The settings, and what base and start are."""
        return [
            asdict(one)
            | {"settings": one.settings.model_dump(), "base": sha256_of(one.base)}
            | {"start": None if one.start is None else sha256_of(one.start)}
            for one in items
        ]

    def folders(self) -> Sequence[Path]:
        """Where checkpoints are."""
        return [self.folder / "weights", self.folder / "folds"]

    def has_files(self, items: Sequence[FineTune]) -> bool:
        """Whether the checkpoints are there."""
        return all(one.weights.is_file() for one in items)

    def title(self, item: FineTune) -> str:
        """The checkpoint's place in the round's folder."""
        return str(item.weights.relative_to(self.folder))
