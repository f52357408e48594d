"""The run folder: where everything of a run lies, and whether a run goes on in it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, TypeVar

from bootstrap.config import LEFT_TO_MODEL
from bootstrap.row import read_row
from diffugen.config.content import fingerprints, first_change, renamed
from diffugen.config.loader import Strict, validate
from diffugen.contained import check_contained
from diffugen.errors import UserError, reason_of
from diffugen.files import read_json, sha256_of, write_json
from diffugen.lock import locked
from diffugen.outputs import WANDB
from diffugen.sample import Sample
from diffugen.versions import library_versions

logger = logging.getLogger(__name__)

AnyConfig = TypeVar("AnyConfig", bound=Strict)

NUM_FOLDS = 3
"""Of cross-fitted photos: each detector that judges some is trained on two thirds of them."""


@dataclass(frozen=True)
class RoundFolder:
    """The files of one round. It is complete when `metrics` exists; then nothing in it changes again."""

    path: Path

    @property
    def index(self) -> int:
        return int(self.path.name.removeprefix("round_"))

    @property
    def prefix(self) -> str:
        """Of the names of the round's samples, which are unique within the run."""
        return f"r{self.index:02d}_"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def shards(self) -> Path:
        """Records of what workers made, until the round is labelled."""
        return self.path / "shards"

    @property
    def masks(self) -> Path:
        return self.path / "masks"

    def mask_of(self, sample: Sample) -> Path:
        """The index map of one of the round's samples."""
        return self.masks / sample.image_path.name

    @property
    def corrections(self) -> Path:
        """A copy of the corrections at the time when the round planned its variations."""
        return self.path / "corrections.json"

    def relabelled(self, index: int) -> Path:
        """An earlier round's samples as this round re-labelled them."""
        return self.path / f"relabelled_{index:02d}.jsonl"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def weights(self) -> Path:
        return self.path / "weights" / "best.pt"

    @property
    def validation(self) -> Path:
        return self.path / "validation.json"

    @property
    def scratch(self) -> Path:
        """What fine-tuning needs meanwhile."""
        return self.path / "finetune"

    def fold(self, number: int) -> Path:
        """The checkpoint that was trained without a fold of the photos."""
        return self.path / "folds" / f"{number}.pt"

    @property
    def folds(self) -> list[Path]:
        """All of them that are there."""
        return list(takewhile(Path.is_file, map(self.fold, count())))

    @property
    def evidence(self) -> Path:
        return self.path / "evidence.json"

    @property
    def decision(self) -> Path:
        return self.path / "decision.json"

    @property
    def seconds(self) -> Path:
        return self.path / "seconds.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def checksums(self) -> Path:
        return self.path / "checksums.json"

    @property
    def complete(self) -> bool:
        return self.metrics.is_file()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that the block takes to the stage's, which may have been cut off before."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.seconds_by_stage()
            seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)
            write_json(self.seconds, seconds)

    def seconds_by_stage(self) -> dict[str, float]:
        """The seconds that stages took so far; none of a damaged file, on which nothing depends."""
        try:
            seconds = read_json(self.seconds)
            return {str(name): float(value) for name, value in seconds.items()}
        except FileNotFoundError:
            return {}
        except (AttributeError, TypeError, ValueError):
            logger.warning("%s is damaged; times are measured from here on", self.seconds)
            self.seconds.unlink()
            return {}


@dataclass(frozen=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def concept(self) -> Path:
        return self.path / "concept"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def corrections(self) -> Path:
        return self.path / "corrections.json"

    @property
    def photos(self) -> Path:
        """The photos that each show a rare object, with their attention."""
        return self.path / "photos"

    @property
    def labelled(self) -> Path:
        return self.path / "labelled"

    @property
    def checksums(self) -> Path:
        """Of the files that belong to no round."""
        return self.path / "checksums.json"

    def round(self, index: int) -> RoundFolder:
        return RoundFolder(self.path / f"round_{index:02d}")

    def complete_rounds(self) -> list[RoundFolder]:
        """The rounds that are complete, in order, up to the first that is not."""
        rounds: list[RoundFolder] = []
        while (folder := self.round(len(rounds))).complete:
            rounds.append(folder)
        return rounds

    def check_contained(self) -> None:
        """Check that no link in a run folder, which may be somebody else's, leads out of it.

        Raises:
            UserError: one does; so nothing outside is read or written by way of it.
        """
        check_contained(self.path, "run folder", passed_over=WANDB)

    def class_names(self) -> list[str]:
        """The classes of the run, as its config.json has them.

        Raises:
            UserError: it is no run folder, or its config.json is damaged.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} is no run folder; give the folder that `diffugen loop` wrote")
        record = read_json(self.config)
        config = record.get("config") if isinstance(record, dict) else None
        names = config.get("classes") if isinstance(config, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.config} names no classes; give a run folder as `diffugen loop` wrote it")
        return names

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other process out of the run folder, see `diffugen.lock.locked`."""
        return locked(self.path)

    def resumed(self, config: AnyConfig) -> AnyConfig:
        """The config, with what it left to the model as it was when the run was started.

        A folder that holds results resumes only with the config that it was started with. Paths count by their content,
        so the run and its inputs may be moved. How long the loop goes on may change (`LENGTH_SETTINGS`,
        `ON_FAILURE`), and who does the work (`EXECUTOR`).

        Raises:
            UserError: a setting differs, or the content of a path; the message names it. Or there are more complete
                rounds than the config wants, or the run's config.json is damaged.
        """
        if not self.config.is_file() or not (self.concept.exists() or self.round(0).path.exists()):
            return config
        started_with, content = self.started_with()
        if "repeats" in (started_with.get("pool") or {}):
            raise UserError(
                f"run folder {self.path} was started with pool.repeats, which was removed; finish it with the version "
                "of diffugen that began it, or give another folder with --out"
            )
        now = config.model_dump(mode="json")
        for path in LEFT_TO_MODEL:
            _fill(now, started_with, path.split("."))
        change = first_change(_what_decides(started_with), _what_decides(now), content)
        if change is not None:
            raise UserError(
                f"{change} since run folder {self.path} was started (see its config.json); change it back to "
                "resume, or give another folder with --out"
            )
        wanted, done = now.get("rounds", {}).get("num_rounds"), len(self.complete_rounds())
        if wanted is not None and wanted < done:
            raise UserError(
                f"setting 'rounds.num_rounds' is {wanted}, but {self.path} has {done} complete rounds; give as many or "
                "more, or another folder with --out"
            )
        return validate(now, type(config), where=f"the config of {self.path}")

    def write_config(self, config: Strict, *, weights: Path) -> None:
        """Record the resolved config, and what else the results depend on."""
        values = config.model_dump(mode="json")
        if self.config.is_file():
            started_with, content = self.started_with()
            if first_change(_what_decides(started_with), _what_decides(values), content) is None:
                values = renamed(values, started_with, content)
                if started_with != values:  # prolonged; the versions stay those that the run was started with
                    write_json(self.config, {**read_json(self.config), "config": values})
                return
        record = {
            "config": values,
            "content": fingerprints(values),
            "seed": getattr(config, "seed", None),
            "versions": library_versions(),
            "sha256": {"detector.base_weights": sha256_of(weights)},
        }
        write_json(self.config, record)

    def name_of_model(self, path: str) -> str:
        """The model as samples record it: by its path when the run was started, wherever it lies now."""
        if not self.config.is_file():
            return path
        started_with, content = self.started_with()
        return renamed(path, started_with.get("model", {}).get("path"), content, "model.path")

    def started_with(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The config that the run was started with, and the fingerprints of its paths.

        Raises:
            UserError: its config.json is damaged.
        """
        try:
            record = read_json(self.config)
            values, content = record["config"], record.get("content", {})  # version 0.1 recorded none
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self.config} is damaged ({reason_of(error)}); restore it from a copy, or give another folder with "
                "--out"
            ) from None
        if not isinstance(values, dict) or not isinstance(content, dict):
            raise UserError(f"{self.config} is damaged; restore it from a copy, or give another folder with --out")
        return _without_repeats(values), content


LENGTH_SETTINGS = ("num_rounds", "patience")
"""Settings of `rounds` that decide how many of them there are, and nothing else."""

EXECUTOR = "executor"
"""The setting of who does the work, on which no file depends."""

ON_FAILURE = "on_failure"
"""The setting of a concept that decides whether the loop goes on, and nothing else."""


def _fill(values: Any, recorded: Any, path: Sequence[str]) -> None:
    """Take a value that is null from the record."""
    if isinstance(values, list) and isinstance(recorded, list):
        for value, one in zip(values, recorded, strict=False):
            _fill(value, one, path)
    if not isinstance(values, dict) or not isinstance(recorded, dict):
        return
    name, *below = path
    if below:
        _fill(values.get(name), recorded.get(name), below)
    elif name in values and values[name] is None:
        values[name] = recorded.get(name)


def _without_repeats(values: dict[str, Any]) -> dict[str, Any]:
    """A recorded config without `pool.repeats`, which was removed; a photo counted once by default, and nothing was
    pasted. Where it counted more often, the setting stays: such a run cannot go on."""
    pool = values.get("pool")
    if not isinstance(pool, dict) or pool.get("repeats") != 1:
        return values
    return {**values, "pool": {"pasted": 0, **{key: value for key, value in pool.items() if key != "repeats"}}}


def _what_decides(config: dict[str, Any]) -> dict[str, Any]:
    rounds = config.get("rounds", {})
    kept = {key: value for key, value in config.items() if key not in (EXECUTOR, "concept")}
    concepts = [
        {key: value for key, value in concept.items() if key != ON_FAILURE} for concept in config.get("concept", ())
    ]
    rounds = {key: value for key, value in rounds.items() if key not in LENGTH_SETTINGS}
    return {**kept, "concept": concepts, "rounds": rounds}


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^31) for one purpose of a run, such as ("image", round, number)."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def promoted_rounds(run: RunFolder) -> list[RoundFolder]:
    """The complete rounds whose checkpoints were promoted, the one that stands last."""
    return [folder for folder in run.complete_rounds() if read_row(folder.metrics)["promoted"]]


def promoted_round(run: RunFolder) -> RoundFolder | None:
    """The complete round whose checkpoint stands promoted."""
    promoted = promoted_rounds(run)
    return promoted[-1] if promoted else None
