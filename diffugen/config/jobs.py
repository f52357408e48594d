"""From a config file to the datasets that it describes: one in our form, or several in DiffuGen's first form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffugen.config.dataset import DatasetConfig
from diffugen.config.first_release import TASKS, default_out, is_upstream, is_upstream_key, translate
from diffugen.config.loader import apply_override, read_config, validate
from diffugen.errors import UserError


@dataclass(frozen=True)
class DatasetJob:
    """One dataset to generate, and where."""

    config: DatasetConfig
    out: Path


def load_jobs(
    path: Path, overrides: Sequence[str] = (), *, out: Path | None = None, task: str | None = None
) -> list[DatasetJob]:
    """The datasets that a config file describes: one in our form, one per task in upstream's, in their order.

    Args:
        path: the JSON file.
        overrides: as in `load_config`; for an upstream config their keys and ours work both, ours for every task.
        out: the dataset's folder, or with several of them the folder above; by default runs/<CONFIG>, or for an
            upstream config <dataset_root>/<dataset_name>/<task>.
        task: only this one of an upstream config.

    Raises:
        UserError: one sentence for the first thing that is wrong.
    """
    values = read_config(path)
    if not is_upstream(values):
        if task is not None:
            raise UserError(f"--task is for configs of DiffuGen's first release; give --set task.kind={task} instead")
        for override in overrides:
            apply_override(values, override)
        config = validate(values, DatasetConfig, folder=Path(path).parent)
        return [DatasetJob(config, out or Path("runs") / Path(path).stem)]
    for override in overrides:
        if is_upstream_key(override.partition("=")[0]):
            apply_override(values, override)
    tasks = [name for name in TASKS if name in values]
    if task is not None and task not in tasks:
        raise UserError(f"--task {task}: {path} has no group {task!r}, only {', '.join(tasks)}")
    chosen = [task] if task else tasks
    outs = {
        name: default_out(values, name) if out is None else out / name if len(chosen) > 1 else out for name in chosen
    }
    jobs = []
    for name, translated in translate(values, chosen).items():
        if name != "txt2img" and Path(translated["task"]["source"]) == default_out(values, "txt2img"):
            translated["task"]["source"] = str(outs.get("txt2img", default_out(values, "txt2img")))
        jobs.append(DatasetJob(_validated(name, translated, overrides), outs[name]))
    return jobs


def _validated(task: str, values: dict[str, Any], overrides: Sequence[str]) -> DatasetConfig:
    ours = [override for override in overrides if not is_upstream_key(override.partition("=")[0])]
    if any(override.startswith(("num_images=", "prompts.mode=")) for override in ours):
        values.pop("num_images_per_prompt", None)
    for override in ours:
        apply_override(values, override)
    if "path" not in values["model"]:
        raise UserError(f"setting '{task}.stable_diffusion_model' is missing; add it, or give --set model.path=MODEL")
    return validate(values, DatasetConfig, folder=Path.cwd())
