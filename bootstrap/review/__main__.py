"""Samples that a person should look at: out to Label Studio, and corrected into the next round.

diffugen review export runs/piano --out tasks.json
diffugen review import runs/piano corrected.json
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bootstrap.checksums import note_finished
from bootstrap.corrections import latest_samples, read_corrections, with_corrections
from bootstrap.review.label_studio import (
    data_uri,
    from_annotation,
    labelling_config,
    local_url,
    name_of,
    newest_annotation,
    to_task,
)
from bootstrap.run_folder import RunFolder
from bootstrap.samples import read_latest
from diffugen.cli.parser import CommandParser
from diffugen.cli.review import OUTCOMES, add_review_arguments
from diffugen.command_line import run_command
from diffugen.errors import UserError, reason_of
from diffugen.files import link_file, read_json, read_text, write_json, write_text
from diffugen.naming import text_of
from diffugen.outputs import check_output_file, new_output
from diffugen.sample import Sample

logger = logging.getLogger(__name__)


def export_review(
    run: RunFolder, out: Path, outcomes: Sequence[str] = ("review",), *, embed_images: bool = False
) -> int:
    """Write the samples of a run with these outcomes as Label Studio tasks, beside them the project's XML.

    Outcomes and labels are the current ones: as a later round re-labelled them, or a person corrected them.

    Args:
        run: the run folder.
        out: the tasks (.json); the images go to `<stem>_images/` beside them, under the names of their samples.
        outcomes: of which samples.
        embed_images: put the images into the tasks instead.

    Returns:
        The number of tasks.

    Raises:
        UserError: the run is damaged, a file of it leads out of its folder, or the files may not be written.
    """
    if out.suffix.lower() != ".json":
        raise UserError(f"--out {text_of(out)} must end in .json; the labelling config is written beside it as .xml")
    run.check_contained()
    class_names = run.class_names()
    for file, is_own in ((out, _is_tasks), (out.with_suffix(".xml"), _is_labelling_config)):
        check_output_file(file, [run.path], is_own=is_own)
    chosen = [sample for sample in latest_samples(run, read_corrections(run)) if sample.outcome in outcomes]
    for sample in chosen:
        _check_sample(sample, class_names)
    folder = images_folder(out)
    if embed_images:
        images = [data_uri(sample.image_path) for sample in chosen]
    else:
        images = [local_url(folder.name, f"{sample.name}.png") for sample in chosen]
        with new_output(folder, "review", [run.path], option="the images' folder") as temporary:
            for sample in chosen:
                link_file(sample.image_path, temporary / f"{sample.name}.png")
    tasks = [to_task(sample, class_names, image) for sample, image in zip(chosen, images, strict=True)]
    write_text(out, json.dumps(tasks))
    write_text(out.with_suffix(".xml"), labelling_config(class_names) + "\n")
    return len(chosen)


def images_folder(out: Path) -> Path:
    """Where the images of an export go."""
    return out.with_name(f"{out.stem}_images")


def _check_sample(sample: Sample, class_names: Sequence[str]) -> None:
    if not sample.image_path.is_file():
        raise UserError(f"the image {sample.image_path} of sample {sample.name} is missing; restore it from a copy")
    if not all(0 <= class_id < len(class_names) for class_id in sample.instances.class_ids):
        raise UserError(
            f"sample {sample.name} has labels of classes that the run does not have ({len(class_names)} classes); "
            "restore its samples.jsonl from a copy"
        )


def import_review(run: RunFolder, export: Path) -> int:
    """Take corrected annotations into the run: later rounds train on them, and vary them, instead of what was there.

    Args:
        run: the run that the tasks came from; nothing in its finished rounds changes.
        export: Label Studio's JSON export.

    Returns:
        The number of samples that were annotated.

    Raises:
        UserError: the file is no such export, names an unknown sample, or has a region that cannot be read; then
            nothing of it is taken.
    """
    run.check_contained()
    class_names, corrected = run.class_names(), read_corrections(run)
    samples = {sample.name: sample for sample in _exported_samples(run, corrected)}
    found: dict[str, Any] = {}
    for task in _read_export(export):
        sample = samples.get(name_of(task))
        if sample is None:
            raise UserError(f"{export} has a task that is no sample of {run.path}; export from the same run")
        annotation = newest_annotation(task)
        if annotation is None:
            continue
        if sample.name in found:
            raise UserError(
                f"{export} has two annotated tasks of {sample.name}; remove one in Label Studio and export again"
            )
        found[sample.name] = from_annotation(annotation, task, class_names, sample.instances).to_json()
    if frozen := [name for name in found if samples[name].split == "val"]:
        logger.warning(
            "%d of them are in the validation split, which stays as it is (first: %s)", len(frozen), frozen[0]
        )
    if found:
        write_json(run.corrections, corrected | found)
        note_finished(run, run.corrections)
    return len(found)


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


def _exported_samples(run: RunFolder, corrections: dict[str, Any]) -> Iterator[Sample]:
    """Every sample of the run with its current labels, the photos of all rounds among them."""
    complete = run.complete_rounds()
    for folder in complete:
        yield from with_corrections(read_latest(folder, complete), corrections)


def _read_export(path: Path) -> list[dict[str, Any]]:
    text = read_text(path)
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON export of Label Studio ({reason_of(error)}); export as JSON") from None
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
    if options.step == "import":
        print(f"{import_review(run, options.export)} samples corrected; the next round trains on them")
        return
    outcomes = options.outcome or ["review"]
    num = export_review(run, options.out, outcomes, embed_images=options.embed_images)
    if not num:
        others = " or ".join(f"--outcome {outcome}" for outcome in OUTCOMES if outcome not in outcomes)
        remedy = f"; {others} exports other images" if others else ""
        print(f"0 tasks: no image of the run has the outcome {' or '.join(outcomes)}{remedy}")
        return
    print(f"{num} tasks: {options.out}\nlabelling config: {options.out.with_suffix('.xml')}")
    if not options.embed_images:
        folder = images_folder(options.out.absolute())
        print(
            f"images: {folder}\n"
            "Label Studio serves them if it is started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and\n"
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}, and the project has a local storage of {folder}"
        )


if __name__ == "__main__":
    sys.exit(main())
