"""Samples that a person should look at: out to Label Studio, and corrected into the next round.

diffugen review export runs/piano --out tasks.json
diffugen review import runs/piano corrected.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bootstrap.corrections import latest_samples, read_corrections
from bootstrap.review.label_studio import from_task, labelling_config, to_task
from bootstrap.run_folder import RunFolder
from diffugen.cli.parser import CommandParser
from diffugen.cli.review import add_review_arguments
from diffugen.command_line import run_command
from diffugen.errors import UserError
from diffugen.files import read_json, write_json, write_text
from diffugen.outputs import check_output_file
from diffugen.sample import read_samples


def export_review(run: RunFolder, out: Path, outcomes: Sequence[str] = ("review",)) -> int:
    """Write the samples of a run with these outcomes as Label Studio tasks, beside them the project's XML.

    Outcomes and labels are the current ones: as a later round re-labelled them, or a person corrected them.

    Returns:
        The number of tasks.

    Raises:
        UserError: the run cannot be read, or the files may not be written.
    """
    class_names = _class_names(run)
    for file, is_own in ((out, _is_tasks), (out.with_suffix(".xml"), _is_labelling_config)):
        check_output_file(file, [run.path], is_own=is_own)
    chosen = [sample for sample in latest_samples(run, read_corrections(run)) if sample.outcome in outcomes]
    write_text(out, json.dumps([to_task(sample, class_names) for sample in chosen]))
    write_text(out.with_suffix(".xml"), labelling_config(class_names) + "\n")
    return len(chosen)


def import_review(run: RunFolder, export: Path) -> int:
    """Take corrected annotations into the run: later rounds train on them, and vary them, instead of what was there.

    Args:
        run: the run that the tasks came from; nothing in its finished rounds changes.
        export: Label Studio's JSON export.

    Returns:
        The number of corrected samples.

    Raises:
        UserError: the file is no such export, or names an unknown sample.
    """
    class_names, corrected = _class_names(run), read_corrections(run)
    samples = {sample.name: sample for folder in run.complete_rounds() for sample in read_samples(folder.samples)}
    before = len(corrected)
    for task in _read_export(export):
        sample = samples.get(task.get("data", {}).get("name", ""))
        if sample is None:
            raise UserError(f"{export} has a task that is no sample of {run.path}; export from the same run")
        instances = from_task(task, class_names, sample.instances.size_hw)
        if instances is not None:
            corrected[sample.name] = instances.to_json()
    write_json(run.corrections, corrected)
    return len(corrected) - before


def _is_tasks(path: Path) -> bool:
    try:
        tasks = read_json(path)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(tasks, list) and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and {"name", "why"} <= set(task["data"])
        for task in tasks
    )


def _is_labelling_config(path: Path) -> bool:
    return path.read_bytes().startswith(b'<View><Header value="$why"/>')


def _class_names(run: RunFolder) -> list[str]:
    if not run.config.is_file():
        raise UserError(f"{run.path} is no run folder; give the folder that train_loop.py wrote")
    return list(read_json(run.config)["config"]["classes"])


def _read_export(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON export of Label Studio ({error})") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path} is no JSON export of Label Studio; choose the format JSON there, not JSON-MIN")
    return tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m bootstrap.review`."""
    parser = CommandParser(
        prog="python -m bootstrap.review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_review_arguments(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: run_review(options), "review")


def run_review(options: argparse.Namespace) -> None:
    """`diffugen review`, `python -m bootstrap.review`."""
    run = RunFolder(options.run_folder)
    if options.step == "export":
        num = export_review(run, options.out, options.outcome or ("review",))
        print(f"{num} tasks: {options.out}\nlabelling config: {options.out.with_suffix('.xml')}")
    else:
        print(f"{import_review(run, options.export)} samples corrected; the next round trains on them")


if __name__ == "__main__":
    sys.exit(main())
