"""What a run publishes at its top: `best.pt`, `dataset/` and `report.html`, which never replace files of the user's."""

from __future__ import annotations

import filecmp
from pathlib import Path

from bootstrap.checksums import is_as_noted, note_finished
from bootstrap.row import read_row
from bootstrap.run_folder import RunFolder, promoted_round
from diffugen.checksums import files_in
from diffugen.errors import UserError
from diffugen.files import is_same_file, link_file, link_tree, read_json, write_jsonl
from diffugen.outputs import check_output


def is_run(folder: Path) -> bool:
    """Whether a folder without a marker is a run of an earlier version: its config.json has what no other has."""
    try:
        record = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and {"config", "versions", "sha256"} <= set(record)


def check_published(run: RunFolder) -> None:
    """Check that what lies where the run publishes is what it published.

    Raises:
        UserError: a file or folder is not, or was changed since.
    """
    check_output(run.dataset, "dataset", option="the run's dataset", is_earlier=lambda folder: _is_rounds(run, folder))
    if run.best.exists() and not _is_published(run):
        raise UserError(f"{run.best} is not the checkpoint of a round of this run; rename or move it, then resume")
    if run.report.exists() and not _is_report(run.report):
        raise UserError(f"{run.report} is not a report of this run; rename or move it, then resume")


def publish(run: RunFolder) -> None:
    """Bring the run's own `metrics.jsonl`, `dataset/` and `best.pt` up to date with the complete rounds.

    Raises:
        UserError: see `check_published`.
    """
    write_jsonl(run.metrics, (dict(read_row(folder.metrics)) for folder in run.complete_rounds()))
    best = promoted_round(run)
    if best is None or (is_same_file(run.best, best.weights) and _holds(run.dataset, best.dataset)):
        return
    check_published(run)
    link_tree(best.dataset, run.dataset)
    link_file(best.weights, run.best)  # last: where it is the round's, the dataset is as well
    note_finished(run, run.best)


def _holds(folder: Path, other: Path) -> bool:
    """Whether a folder has all files of another."""
    return all(is_same_file(path, folder / path.relative_to(other)) for path in files_in(other))


def _is_published(run: RunFolder) -> bool:
    """Whether best.pt is a round's checkpoint, by the same bytes, or of one that has been removed."""
    if run.best.is_symlink() or not run.best.is_file():
        return False
    if is_as_noted(run, run.best):
        return True
    weights = [path for path in run.path.glob("round_*/weights/best.pt") if path.is_file()]
    return any(run.best.samefile(path) or filecmp.cmp(run.best, path, shallow=False) for path in weights)


def _is_rounds(run: RunFolder, dataset: Path) -> bool:
    """Whether an earlier version published a folder: its annotations are those of a round's dataset."""
    own = dataset / "coco" / "train.json"
    rounds = run.path.glob("round_*/dataset/coco/train.json")
    return own.is_file() and any(filecmp.cmp(own, path, shallow=False) for path in rounds)


def _is_report(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"diffugen</title>" in file.read(4096)
