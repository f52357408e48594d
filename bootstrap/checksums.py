"""Checksums of finished rounds: whatever happened to a disk since then is found before anything is built on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from bootstrap.row import Row
from bootstrap.run_folder import RoundFolder, RunFolder
from diffugen.errors import UserError
from diffugen.files import read_json, sha256_of, write_json
from diffugen.progress import progress_bar

Inode = tuple[int, int]


def complete_round(folder: RoundFolder, row: Row) -> None:
    """Complete a round: write the SHA-256 of all its files to `checksums.json`, then `metrics.json` with the row."""
    content = json.dumps(row, indent=2, ensure_ascii=False) + "\n"  # as write_json writes it
    seen: dict[Inode, str] = {}
    sums = {str(path.relative_to(folder.path)): _sha256(path, seen) for path in _files(folder)}
    write_json(folder.checksums, {**sums, folder.metrics.name: hashlib.sha256(content.encode()).hexdigest()})
    write_json(folder.metrics, row)


def check_rounds(run: RunFolder) -> None:
    """Check the files of all complete rounds against their checksums.

    Raises:
        UserError: the first file that is missing or has another content than when its round was completed.
    """
    wanted = {
        folder.path / name: checksum
        for folder in run.complete_rounds()
        if folder.checksums.is_file()
        for name, checksum in _read_checksums(folder).items()
    }
    seen: dict[Inode, str] = {}
    for path, checksum in progress_bar(
        wanted.items(), desc="checking finished rounds", unit="file", leave=False, delay=2
    ):
        trouble = "is missing" if not path.is_file() else "is corrupt" if _sha256(path, seen) != checksum else ""
        if trouble:
            first = path.relative_to(run.path).parts[0]
            raise UserError(
                f"{path} {trouble}: it is not as it was when its round was finished; restore it from a copy, or "
                f"remove {first} and the rounds after it, which are then made again"
            )


def _read_checksums(folder: RoundFolder) -> dict[str, str]:
    try:
        return dict(read_json(folder.checksums))
    except ValueError:
        raise UserError(
            f"{folder.checksums} is corrupt; restore it from a copy, or remove it to go on without checking"
        ) from None


def _files(folder: RoundFolder) -> Iterator[Path]:
    """Every file of a round but those that others may write later: ultralytics' caches."""
    for path in sorted(folder.path.rglob("*")):
        if path.is_file() and path.suffix != ".cache" and path not in (folder.checksums, folder.metrics):
            yield path


def _sha256(path: Path, seen: dict[Inode, str]) -> str:
    """A file's checksum; files that share their bytes with one that was read are not read again."""
    status = path.stat()
    inode = status.st_dev, status.st_ino
    if inode not in seen:
        seen[inode] = sha256_of(path)
    return seen[inode]
