"""How damaged files are found: by the checksums that formats have, by lines with a seal, by SHA-256 noted earlier."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffugen.errors import UserError
from diffugen.files import read_jsonl, sha256_of, utf8_of, write_text

_SEAL = "sha256_of_lines"
_PNG = b"\x89PNG\r\n\x1a\n"


class Sums:
    """SHA-256 of files; files that share their bytes (hard links) are read once."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], str] = {}

    def of(self, path: Path) -> str:
        """A file's SHA-256, in hexadecimal."""
        return self._of(path, os.stat(path))

    def _of(self, path: Path, status: os.stat_result) -> str:
        if status.st_nlink == 1:  # of a million files there is nothing to remember
            return sha256_of(path)
        inode = status.st_dev, status.st_ino
        if inode not in self._seen:
            self._seen[inode] = sha256_of(path)
        return self._seen[inode]

    def of_all(self, paths: Iterable[Path], root: Path) -> dict[str, str]:
        """By path relative to `root`, the SHA-256 of files and of all files in folders."""
        return {str(file.relative_to(root)): self.of(file) for path in paths for file in files_in(path)}

    def trouble(self, path: Path, checksum: str) -> str:
        """Why a file is not the one with this checksum: it "is missing" or "is corrupt"; empty if it is."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return "is missing"
        if not stat.S_ISREG(status.st_mode):
            return "is missing"
        return "is corrupt" if self._of(path, status) != checksum else ""

    def first_trouble(self, root: Path, checksums: Mapping[str, str]) -> str:
        """The first file that differs from its checksum and how, such as "run/a.png is missing"; empty if none does."""
        for name, checksum in checksums.items():
            if trouble := self.trouble(root / name, checksum):
                return f"{root / name} {trouble}"
        return ""


def files_in(path: Path) -> Iterator[Path]:
    """A file, or all files of a folder but ultralytics' caches, which it writes whenever it reads a dataset."""
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _files_below(path)


def _files_below(folder: str | Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
        elif entry.is_file() and os.path.splitext(entry.name)[1] != ".cache":
            yield Path(entry.path)


def is_intact(path: Path) -> bool:
    """Whether a PNG or zip file (such as npz, or torch's) is there, whole and as its own checksums say."""
    try:
        data = path.read_bytes()
        if path.suffix == ".png":
            return _is_intact_png(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            num_files = int.from_bytes(data[-12:-10], "little")  # as the archive's end has it
            return archive.testzip() is None and len(archive.namelist()) == num_files
    except Exception:  # what a damaged archive leads to is no closed list
        return False


def _is_intact_png(data: bytes) -> bool:
    if not data.startswith(_PNG):
        return False
    position, kind = len(_PNG), b""
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if int.from_bytes(data[end : end + 4], "big") != zlib.crc32(data[position + 4 : end]) or end + 4 > len(data):
            return False
        position = end + 4
    return position == len(data)


def write_sealed(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, then a line with the SHA-256 of all others; atomically."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_text(path, text + json.dumps({_SEAL: hashlib.sha256(utf8_of(text)).hexdigest()}) + "\n")


def read_sealed(path: Path) -> list[dict[str, Any]]:
    """Read what `write_sealed` wrote; lines of version 0.1, which have an `id` each and no seal, are read as well.

    Raises:
        UserError: it is not as it was written.
        OSError: it is not there or cannot be read.
    """
    records = read_jsonl(path)
    if records and all("id" in record for record in records):
        return records
    content, _, _ = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    content += b"\n" if content else b""
    if not records or records[-1] != {_SEAL: hashlib.sha256(content).hexdigest()}:
        raise UserError(f"{path} is damaged (its lines are not those that were written); remove it")
    return records[:-1]
