"""Weights & Biases: metrics by round, tables of images with masks, the dataset and checkpoint as artifacts.

Tracking is a courtesy: whatever goes wrong in it is logged, and the run goes on.
"""

from __future__ import annotations

import functools
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

import numpy as np

from bootstrap.config import WandbConfig
from bootstrap.samples import SampleRecord, read_samples
from bootstrap.state import RunFolder
from diffugen.config import Strict
from diffugen.files import read_json, write_json

logger = logging.getLogger(__name__)

NUM_TABLE_IMAGES = 24
"""Images per round in the table; half of them rejected ones where there are any."""

Arguments = ParamSpec("Arguments")


def _never_fails(
    method: Callable[Concatenate[Tracker, Arguments], None],
) -> Callable[Concatenate[Tracker, Arguments], None]:
    @functools.wraps(method)
    def guarded(self: Tracker, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        if not self.enabled:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # a broken tracker must not cost anybody a night's run
            logger.warning("W&B: %s failed (%s); the run goes on without it", method.__name__, error)

    return guarded


class Tracker:
    """One W&B run for one run folder; a resumed run continues it.

    Args:
        config: where to log; with mode "disabled" wandb is not even imported.
        run: the run folder. W&B's files go to its `wandb/`, `wandb/state.json` says which rounds were logged.
    """

    def __init__(self, config: WandbConfig, run: RunFolder) -> None:
        self.config, self.run = config, run
        self.enabled = config.mode != "disabled"
        self._folder = run.path / "wandb"
        self._state: dict[str, Any] = {"id": "", "rounds": [], "finished": False}
        self._wandb: Any = None

    @_never_fails
    def start(self, config: Strict) -> None:
        """Open the W&B run, with the resolved config."""
        for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
            os.environ.setdefault(name, str(self._folder))
        os.environ.setdefault("WANDB_SILENT", "true")
        self._folder.mkdir(parents=True, exist_ok=True)
        state = self._folder / "state.json"
        self._state = read_json(state) if state.is_file() else {**self._state, "id": uuid.uuid4().hex[:12]}
        write_json(state, self._state)
        import wandb  # seconds of imports that most runs do not need

        logged_in = self.config.mode == "online" and wandb.login(prompt=False, verify=False)
        mode: Any = "online" if logged_in else "offline"
        if mode != self.config.mode:
            logger.warning("W&B: no account is logged in, so the run is logged offline; `wandb sync` uploads it")
        self._wandb = wandb.init(
            project=self.config.project,
            name=self.run.path.name,
            id=self._state["id"],
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(self._folder),
            config=config.model_dump(mode="json"),
        )

    @_never_fails
    def log_round(self, row: dict[str, Any], class_names: Sequence[str]) -> None:
        """Log a round's metrics and its table of images, once however often the run is resumed."""
        if self._wandb is None or row["round"] in self._state["rounds"]:
            return
        samples = _choose(read_samples(self.run.round(row["round"])), NUM_TABLE_IMAGES)
        # Without step=: W&B drops rows whose step is not above its own count.
        self._wandb.log({**_flat(row), "samples": _table(samples, row["round"], class_names)})
        self._remember(rounds=[*self._state["rounds"], row["round"]])

    @_never_fails
    def finish(self, rows: Sequence[dict[str, Any]]) -> None:
        """Log the dataset and the checkpoint as artifacts, and close the W&B run."""
        if self._wandb is None:
            return
        import wandb

        if not self._state["finished"]:
            best = [row for row in rows if row["promoted"]][-1]
            lineage = {"round": best["round"], "trained_on": f"{self.run.path.name}-dataset"}
            dataset = wandb.Artifact(f"{self.run.path.name}-dataset", type="dataset", metadata={"round": best["round"]})
            dataset.add_dir(str(self.run.dataset), policy="immutable")
            # Offline W&B cannot link artifacts, so the lineage is metadata.
            checkpoint = wandb.Artifact(f"{self.run.path.name}-best", type="model", metadata={**lineage, **_flat(best)})
            checkpoint.add_file(str(self.run.best), policy="immutable")
            self._wandb.log_artifact(dataset)
            self._wandb.log_artifact(checkpoint)
            self._wandb.summary.update({"best_round": best["round"]})
            self._remember(finished=True)
        self._wandb.finish()

    def _remember(self, **changes: Any) -> None:
        self._state |= changes
        write_json(self._folder / "state.json", self._state)


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as `group/name`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _choose(samples: Sequence[SampleRecord], number: int) -> list[SampleRecord]:
    """The first rejected and kept samples, up to half of `number` of the former."""
    rejected = [sample for sample in samples if not sample.kept][: number // 2]
    return [sample for sample in samples if sample.kept][: number - len(rejected)] + rejected


def _table(samples: Sequence[SampleRecord], round_index: int, class_names: Sequence[str]) -> Any:
    import wandb

    labels = {0: "background", **{index + 1: name for index, name in enumerate(class_names)}}
    table = wandb.Table(columns=["round", "name", "image", "prompt", "outcome", "reason", "agreement"])
    for sample in samples:
        instances = sample.instances
        classes = np.zeros(instances.size_hw, np.uint8)
        for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
            classes[mask] = class_id + 1
        masks = {sample.labeler: {"mask_data": classes, "class_labels": labels}}
        image = wandb.Image(sample.source.image(), masks=masks)
        table.add_data(
            round_index,
            sample.name,
            image,
            sample.source.prompt.text,
            sample.outcome,
            sample.reason,
            sample.agreement,
        )
    return table
