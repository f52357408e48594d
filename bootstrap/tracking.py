"""Weights & Biases: metrics by round, tables of images with masks, the dataset and checkpoint as artifacts.

A failure of tracking never stops a run: it is logged, and shown in the run's summary and report.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec

import numpy as np

from bootstrap.config import WandbConfig
from bootstrap.row import CONFUSION, FOUND, IMAGE_MEASURES, LABEL_MEASURES, SCORES, Row, scores_by_attribute
from bootstrap.run_folder import RunFolder
from bootstrap.verdict import judge_run
from diffugen.config.loader import Strict
from diffugen.files import read_json, write_json
from diffugen.sample import Sample, read_samples

logger = logging.getLogger(__name__)

NUM_TABLE_IMAGES = 24
"""Images per round in the table; half of them rejected ones where there are any."""

_COUNTS = ("round", "num_generated", "num_kept", "promoted")
_JUDGED = (
    FOUND,
    "photos/score",
    "photos/mask_iou",
    "negatives/other/false_positives",
    "negatives/photo/false_positives",
)
_DETAILS = {
    "images/mean_distance",
    "images/kept/mean_distance",
    "images/kept/near_duplicate_fraction",
    "test/images/kid",
}
PLOTTED = frozenset((*_COUNTS, *_JUDGED, *SCORES, *LABEL_MEASURES, *IMAGE_MEASURES)) - _DETAILS
"""The values of a row that are logged as curves; all others go to tables.

With the tables' own keys a round logs at most 60. An artifact may have 100 metadata keys.
"""

RATES_SECONDS = 10.0

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
            reason = str(error).split("\n")[0] or type(error).__name__
            problem = f"Weights & Biases: {_STEPS[method.__name__]} failed ({reason}); the run goes on without it"
            logger.warning(problem)
            self.problems.append(problem)

    return guarded


_STEPS = {
    "start": "starting the W&B run",
    "log_round": "logging a round",
    "finish": "logging the dataset and the checkpoint",
}


class Tracker:
    """One W&B run for one run folder; a resumed run continues it.

    Args:
        config: where to log; with mode "disabled" wandb is not even imported.
        run: the run folder. W&B's files go to its `wandb/`, `wandb/state.json` says which rounds were logged.

    Attributes:
        problems: what failed, a sentence each.
    """

    def __init__(self, config: WandbConfig, run: RunFolder) -> None:
        self.config, self.run = config, run
        self.enabled = config.mode != "disabled"
        self.problems: list[str] = []
        self._folder = run.path / "wandb"
        self._state: dict[str, Any] = {"id": "", "rounds": [], "artifacts_of": None}
        self._wandb: Any = None
        self._online = False
        self._next_rates = 0.0

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
            project=os.environ.get("WANDB_PROJECT", "diffugen"),
            name=self.run.path.name,
            id=self._state["id"],
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(self._folder),
            config=config.model_dump(mode="json"),
        )
        self._online = mode == "online"
        self._wandb.define_metric("*", step_metric="round")

    @_never_fails
    def log_round(self, row: Row, class_names: Sequence[str]) -> None:
        """Log a round's metrics and its table of images, once however often the run is resumed."""
        if self._wandb is None or row["round"] in self._state["rounds"]:
            return
        samples = _choose(read_samples(self.run.round(row["round"]).samples), NUM_TABLE_IMAGES)
        lines = {"attributes": _by_attribute(row), "details": _details(row)}
        tables = {name: _rows_table(found) for name, found in lines.items() if found}
        tables["samples"] = _table(samples, row["round"], class_names)
        # The round is the step, so that the files of an offline run that was resumed go together.
        self._wandb.log({**_plotted(row), **tables}, step=row["round"], commit=True)
        self._remember(rounds=[*self._state["rounds"], row["round"]])

    @_never_fails
    def log_rates(self, desc: str, rates: Mapping[str, float]) -> None:
        """Show the images per second of each worker in the run's summary, every ten seconds at most."""
        if self._wandb is None or time.monotonic() < self._next_rates:
            return
        self._next_rates = time.monotonic() + RATES_SECONDS
        self._wandb.summary.update({"workers": {"work": desc, **rates, "total": sum(rates.values())}})

    @_never_fails
    def finish(self, rows: Sequence[Row]) -> None:
        """Log the dataset and the checkpoint as artifacts, and close the W&B run."""
        if self._wandb is None:
            return
        promoted = [row for row in rows if row["promoted"]]
        try:
            self._wandb.summary.update({"verdict": judge_run(rows).to_json()})
            if promoted and self._state["artifacts_of"] != promoted[-1]["round"]:
                self._log_artifacts(promoted[-1])
                self._wandb.summary.update({"best_round": promoted[-1]["round"]})
                self._remember(artifacts_of=promoted[-1]["round"])
        finally:
            self._wandb.finish()

    def _log_artifacts(self, best: Row) -> None:
        """The promoted round's dataset and checkpoint, the latter with what it was trained on."""
        import wandb

        name = self.run.path.name
        dataset = wandb.Artifact(f"{name}-dataset", type="dataset", metadata={"round": best["round"]})
        dataset.add_dir(str(self.run.dataset), policy="immutable")
        lineage = {"dataset": dataset.name, "dataset_digest": dataset.digest}
        checkpoint = wandb.Artifact(f"{name}-best", type="model", metadata={**lineage, **_plotted(best)})
        checkpoint.add_file(str(self.run.best), policy="immutable")
        logged = self._wandb.log_artifact(dataset)
        if self._online:  # offline there is nothing to link with: the lineage is metadata alone
            self._wandb.use_artifact(logged.wait())
        self._wandb.log_artifact(checkpoint)

    def _remember(self, **changes: Any) -> None:
        self._state |= changes
        write_json(self._folder / "state.json", self._state)


def _plotted(row: Row) -> dict[str, Any]:
    """The values that are logged as curves, without those that could not be measured."""
    seconds = round(sum(row.get("seconds", {}).values()), 3)
    return {key: value for key, value in row.items() if key in PLOTTED and value is not None} | {"seconds": seconds}


def _details(row: Row) -> list[dict[str, Any]]:
    """All other values of a round, a line each."""
    left_out = PLOTTED | {"balance", "test/by_attribute", CONFUSION}
    values = _flat({key: value for key, value in row.items() if key not in left_out})
    lines = []
    for name, value in values.items():
        is_number = isinstance(value, int | float)
        text = "" if is_number else value if isinstance(value, str) else "\n".join(value)
        lines.append({"round": row["round"], "name": name, "value": float(value) if is_number else None, "text": text})
    return lines


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as `group/name`, without those that could not be measured."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return {key: value for key, value in flat.items() if value is not None}


def _by_attribute(row: Row) -> list[dict[str, Any]]:
    """What the filter kept, and how good the detector is, by the values of attributes."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for slot, table in row.get("balance", {}).items():
        for value, counts in table["values"].items():
            lines[slot, value] = {**counts, "p_value": table["p_value"]}
    for slot, values in scores_by_attribute(row).items():
        for value, scores in values.items():
            lines[slot, value] = lines.get((slot, value), {}) | {f"test/{name}": item for name, item in scores.items()}
    return [{"round": row["round"], "slot": slot, "value": value, **line} for (slot, value), line in lines.items()]


def _rows_table(rows: Sequence[dict[str, Any]]) -> Any:
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(columns=columns, data=[[row.get(name) for name in columns] for row in rows])


def _choose(samples: Sequence[Sample], number: int) -> list[Sample]:
    """The first rejected and kept samples, up to half of `number` of the former."""
    rejected = [sample for sample in samples if not sample.kept][: number // 2]
    return [sample for sample in samples if sample.kept][: number - len(rejected)] + rejected


def _table(samples: Sequence[Sample], round_index: int, class_names: Sequence[str]) -> Any:
    import wandb

    labels = {0: "background", **{index + 1: name for index, name in enumerate(class_names)}}
    table = wandb.Table(columns=["round", "name", "image", "prompt", "outcome", "reason", "agreement"])
    for sample in samples:
        instances = sample.instances
        classes = np.zeros(instances.size_hw, np.uint8)
        for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
            classes[mask] = class_id + 1
        masks = {sample.labeler: {"mask_data": classes, "class_labels": labels}}
        image = wandb.Image(sample.pixels(), masks=masks)
        table.add_data(
            round_index,
            sample.name,
            image,
            sample.prompt.text,
            sample.outcome,
            sample.reason,
            sample.agreement,
        )
    return table
