"""Checksums of a round's files: what happened to a disk is found before anything is built on it.

Each stage notes the SHA-256 of its files in the round's `checksums.json` when they are finished. In an unfinished round
a damaged file is removed, with all that was made after it, so that the stages make both again. A complete round never
changes, so there a damaged file ends the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from bootstrap.row import Row
from bootstrap.run_folder import RoundFolder, RunFolder
from diffugen.checksums import Sums, files_in
from diffugen.contained import is_inside
from diffugen.errors import UserError
from diffugen.files import read_json, utf8_of, write_json
from diffugen.progress import progress_bar

logger = logging.getLogger(__name__)


def note_finished(folder: RoundFolder | RunFolder, *paths: Path) -> None:
    """Note the SHA-256 of files, and of all files in folders: they are finished."""
    sums = _read_checksums(folder) if folder.checksums.is_file() else {}
    write_json(folder.checksums, sums | Sums().of_all(paths, folder.path))


def trouble_of(folder: RoundFolder | RunFolder, path: Path) -> str:
    """What is wrong with a file, or one in a folder, since `note_finished`; empty if nothing is, or none was noted."""
    known = _read_checksums(folder) if folder.checksums.is_file() else {}
    own = {name: value for name, value in known.items() if (folder.path / name).is_relative_to(path)}
    return Sums().first_trouble(folder.path, own)


def is_as_noted(folder: RoundFolder | RunFolder, path: Path) -> bool:
    """Whether a file was noted by `note_finished`, and is as it was then."""
    known = _read_checksums(folder) if folder.checksums.is_file() else {}
    checksum = known.get(str(path.relative_to(folder.path)))
    return checksum is not None and not Sums().trouble(path, checksum)


def check_unfinished(folder: RoundFolder) -> None:
    """Remove what is damaged in an unfinished round, and what was made after it; a warning names the file.

    Images and heatmaps are checked where batches are, see `generate_batches`.
    """
    known = _known(folder)
    sums = Sums()
    for name in [name for name in known if Path(name).parts[0] == folder.masks.name]:
        if trouble := sums.trouble(folder.path / name, known[name]):
            logger.warning("%s %s; it is written again", folder.path / name, trouble)
            (folder.path / name).unlink(missing_ok=True)
            del known[name]
    for number, stage in enumerate(_STAGES):
        files = {str(file.relative_to(folder.path)) for path in _found(folder, stage) for file in files_in(path)}
        noted = {name: value for name, value in known.items() if _is_of(name, stage)}
        trouble = sums.first_trouble(folder.path, noted)
        if not trouble and files == set(noted):
            continue
        if trouble:
            logger.warning("%s; it and what was made after it are made again", trouble)
        later = tuple(pattern for stage in _STAGES[number:] for pattern in stage)
        for path in _found(folder, later):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        known = {name: value for name, value in known.items() if not _is_of(name, later)}
        break
    if folder.checksums.is_file():
        write_json(folder.checksums, known)


_STAGES = (
    ("samples.jsonl",),
    ("relabelled_*.jsonl",),
    ("dataset",),
    ("weights",),
    ("folds", "evidence.json"),
    ("validation.json", "decision.json"),
)
"""What stages write into a round's folder, in their order. Images follow from the plan, masks from the samples."""


def _found(folder: RoundFolder, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.path.glob(pattern))]


def _is_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(Path(name).parts[0], pattern) for pattern in patterns)


def _known(folder: RoundFolder) -> dict[str, str]:
    """What was noted in an unfinished round; nothing where that is damaged."""
    trouble = "is missing"
    if folder.checksums.is_file():
        try:
            return _read_checksums(folder)
        except UserError:
            trouble = "is corrupt"
            folder.checksums.unlink()
    if folder.samples.is_file():
        logger.warning("%s %s; what was made after the images is made again", folder.checksums, trouble)
    return {}


def complete_round(folder: RoundFolder, row: Row) -> None:
    """Complete a round: write the SHA-256 of all its files to `checksums.json`, then `metrics.json` with the row."""
    content = json.dumps(row, indent=2, ensure_ascii=False) + "\n"  # as write_json writes it
    known = _read_checksums(folder) if folder.checksums.is_file() else {}
    known.pop(folder.seconds.name, None)  # of a completion that was cut off here; seconds have been added since
    sums = Sums()
    found = {
        name: known.get(name) or sums.of(file)
        for file in _files(folder)
        for name in [str(file.relative_to(folder.path))]
    }
    write_json(folder.checksums, {**found, folder.metrics.name: hashlib.sha256(utf8_of(content)).hexdigest()})
    write_json(folder.metrics, row)


def check_rounds(run: RunFolder) -> None:
    """Check the files of all complete rounds against their checksums.

    Raises:
        UserError: the first file that is missing or has another content than when its round was completed.
    """
    known = {folder: _checksums_of_complete(folder) for folder in run.complete_rounds()}
    wanted = ((folder.path / name, checksum) for folder, sums in known.items() for name, checksum in sums.items())
    sums, total = Sums(), sum(map(len, known.values()))
    for path, checksum in progress_bar(
        wanted, total=total, desc="checking finished rounds", unit="file", leave=False, delay=2
    ):
        if trouble := sums.trouble(path, checksum):
            first = path.relative_to(run.path).parts[0]
            raise UserError(
                f"{path} {trouble}: it is not as it was when its round was finished; restore it from a copy, or "
                f"remove {first} and the rounds after it, which are then made again"
            )


def _checksums_of_complete(folder: RoundFolder) -> dict[str, str]:
    if folder.checksums.is_file():
        return _read_checksums(folder)
    logger.warning("%s is missing, so the files of this round are not checked", folder.checksums)
    return {}


def _read_checksums(folder: RoundFolder | RunFolder) -> dict[str, str]:
    try:
        sums = read_json(folder.checksums)
        if not isinstance(sums, dict) or not all(isinstance(sums[name], str) and is_inside(name) for name in sums):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{folder.checksums} is corrupt; restore it from a copy, or remove it to go on without checking"
        ) from None
    return sums


def _files(folder: RoundFolder) -> Iterator[Path]:
    """Every file of a round but those that say that it is complete."""
    yield from (file for file in files_in(folder.path) if file not in (folder.checksums, folder.metrics))
