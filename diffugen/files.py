"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import codecs
import contextlib
import errno
import filecmp
import hashlib
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from diffugen.errors import UserError, reason_of


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on error removed.

    Works for a file or a whole folder that the block writes there. It is on the disk before it is renamed (fsync), so
    that not even a power cut leaves a part of it at `path`. A folder already at `path` is renamed aside, to
    `.<name>.diffugen-old`, until the new one is in its place; what a kill in between leaves aside is put back.

    Raises:
        OSError: the disk is full; the error names `path`, and what was written so far is gone.
    """
    with _atomic([Path(path)]) as (temporary,), full_disk_named(path):
        yield temporary


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files together, each atomically, see `atomic_path`; many take hardly longer than one."""
    with _atomic(list(contents)) as temporaries:
        for temporary, (path, content) in zip(temporaries, contents.items(), strict=True):
            with full_disk_named(path):
                temporary.write_bytes(content)


_unfinished: list[Path] = []
"""Folders that are being written under a temporary name: what is put there is flushed and renamed with the folder."""


def is_unfinished(path: Path) -> bool:
    """Whether a path lies in a folder that `atomic_path` is about to put in its place."""
    return any(path.is_relative_to(folder) for folder in _unfinished)


@contextmanager
def _atomic(paths: Sequence[Path]) -> Iterator[list[Path]]:
    parents = {path.parent for path in paths}
    if all(is_unfinished(path) for path in paths):
        for parent in parents:
            parent.mkdir(parents=True, exist_ok=True)
        yield list(paths)
        return
    for parent in parents:
        _make_folder(parent)
    temporaries = [hidden_name(path, f"{_writer}.diffugen-tmp{path.suffix}") for path in paths]
    for temporary, path in zip(temporaries, paths, strict=True):
        _remove(temporary)  # the leftover of a killed run
        _put_back(_aside(path), path)
    try:
        _unfinished.extend(temporaries)
        try:
            yield temporaries
        finally:
            _unfinished[:] = [path for path in _unfinished if path not in temporaries]
        with full_disk_named(paths[0]):  # some file systems say so only now
            _flush(part for temporary in temporaries for part in _tree(temporary))
        for temporary, path in zip(temporaries, paths, strict=True):
            with full_disk_named(path):
                if temporary.is_dir() and path.is_dir() and not path.is_symlink():
                    path.rename(_aside(path))  # a folder that has something in it cannot be replaced by rename
                os.replace(temporary, path)
        _flush(parents)
    finally:
        for temporary, path in zip(temporaries, paths, strict=True):
            _remove(temporary)
            _put_back(_aside(path), path)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_one(folder.parent)


def _tree(path: Path) -> Iterator[str | Path]:
    """All that is in a folder, then itself; or a file."""
    for folder, folders, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *files))
    yield path


def _flush(paths: Iterable[str | Path]) -> None:
    """Wait until files and the entries of folders are on the disk."""
    paths = iter(paths)
    while some := list(islice(paths, _FLUSHED_AT_ONCE)):
        if len(some) == 1:
            _flush_one(*some)
        else:  # a disk confirms many in the time of one
            with ThreadPoolExecutor(_FLUSH_THREADS) as pool:
                list(pool.map(_flush_one, some))


_FLUSH_THREADS = 16
_FLUSHED_AT_ONCE = 1024
"""Files; each takes memory while it waits for its thread."""


def _flush_one(path: str | Path) -> None:
    if os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder of somebody else's, which is not ours to list
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _aside(path: Path) -> Path:
    return hidden_name(path, ".diffugen-old")


_writer = ""
"""Part of temporary names, see `name_temporaries`."""


def name_temporaries() -> None:
    """Let this process write under temporary names of its own, as others may be writing the same files.

    What it leaves behind when it is killed is for `remove_temporaries`.
    """
    global _writer
    _writer = f".w{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-{os.getpid()}"


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed writers, see `name_temporaries`; none may be alive."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if _TEMPORARY.search(entry.name)]:
            _remove(path)


_TEMPORARY = re.compile(r"^\..*\.w[0-9a-f]{8}-\d+\.diffugen-tmp")


def hidden_name(path: Path, ending: str) -> Path:
    """A hidden name in a path's folder that no file system finds too long (they allow 255 bytes)."""
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) + len(ending) < 255 else hashlib.sha256(encoded).hexdigest()
    return path.with_name(f".{name}{ending[:64]}")


def _put_back(aside: Path, path: Path) -> None:
    """Undo half of a folder's replacement; clear up after a whole one."""
    if aside.is_dir() and not path.exists():
        aside.rename(path)
    _remove(aside)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Let the error of a full disk be an OSError that says where; torch and safetensors raise others, few say where."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk (or somebody's share of it) is full."""
    while error is not None:
        if any(getattr(error, "errno", None) == code or os.strerror(code) in str(error) for code in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


_FULL = (errno.ENOSPC, errno.EDQUOT)


def full_disk_message(error: BaseException) -> str:
    """A full disk in one sentence; empty for other errors."""
    if not is_full_disk(error):
        return ""
    place = f" for {name}" if (name := getattr(error, "filename", None)) else ""
    return f"no space left on the disk{place}; free some, and the same command goes on"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def utf8_of(text: str) -> bytes:
    """Text as UTF-8. Bytes of a file's name that are none are escaped, in a way that JSON reads back as they were."""
    return text.encode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, as `utf8_of` has it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(utf8_of(text))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically; records are taken one at a time."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(utf8_of(json.dumps(record, ensure_ascii=False) + "\n") for record in records)


def read_text(path: Path) -> str:
    """Read a text file of somebody else's: UTF-8, with or without a byte order mark.

    Raises:
        UserError: it is no regular file, cannot be read, or has another encoding.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a FIFO would be waited for
        raise UserError(f"{path} is no regular file; replace it by a text file")
    try:
        data = path.read_bytes()
        if encoding := _wide_encoding(data):
            raise UserError(f"{path} is {encoding} text; save it as UTF-8")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 text (line {line}, maybe Latin-1 or Windows-1252); save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that is there and readable") from None


def _wide_encoding(data: bytes) -> str:
    """The name of an encoding with several bytes for each character; empty for others, such as UTF-8."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = tuple(position for position, byte in enumerate(data[:4]) if not byte)  # without a mark: in plain letters
    return {(1, 3): "UTF-16", (0, 2): "UTF-16", (1, 2, 3): "UTF-32", (0, 1, 2): "UTF-32"}.get(zeros, "")


def read_json(path: Path) -> Any:
    """Read one JSON value of a file that diffugen wrote.

    Raises:
        UserError: the file is damaged, as after a power cut; the message names it.
        OSError: it is not there or cannot be read.
    """
    _check_regular(path)
    data = Path(path).read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({_trouble(data, error)}); restore it from a copy or remove it") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of diffugen's with one JSON object per line.

    Raises:
        UserError, OSError: see `read_json`.
    """
    return list(iter_jsonl(path))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Like `read_jsonl`, one object at a time."""
    _check_regular(path)
    with Path(path).open("rb") as file:
        # not text: that also splits at line separators inside a value
        for number, line in enumerate((line.removesuffix(b"\n") for line in file), start=1):
            try:
                if line and not isinstance(record := json.loads(line), dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{path} is damaged (line {number}: {_trouble(line, error)}); restore it from a copy or remove it"
                ) from None
            if line:
                yield record


def _check_regular(path: Path) -> None:
    if os.path.exists(path) and not os.path.isfile(path):  # a FIFO would be waited for
        raise UserError(f"{path} is no regular file; remove it")


def _trouble(data: bytes, error: Exception) -> str:
    return "it is empty" if not data.strip() else reason_of(error)


def sha256_of(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    hashed = hashlib.sha256()
    with path.open("rb", buffering=0) as file:  # most are small, and a buffer costs as much as their hash
        while block := file.read(2**20):
            hashed.update(block)
    return hashed.hexdigest()


def is_same_file(path: Path, other: Path) -> bool:
    """Whether two files are there and one, by a link, or have the same content."""
    try:
        states = os.stat(path), os.stat(other)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not all(stat.S_ISREG(state.st_mode) for state in states):
        return False
    return os.path.samestat(*states) or filecmp.cmp(path, other, shallow=False)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make `target` a hard link to the file `source`, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_file(source: Path, target: Path) -> None:
    """Put `source` at `target` as well, sharing the bytes where the file system can; atomic."""
    with atomic_path(target) as temporary:
        link_or_copy(source, temporary)


def link_tree(source: Path, target: Path) -> None:
    """Put a folder at `target` as well, its files shared where the file system can; atomic."""
    with atomic_path(target) as temporary:
        caches = shutil.ignore_patterns("*.cache")  # ultralytics keeps the paths of images in them
        shutil.copytree(source, temporary, copy_function=link_or_copy, ignore=caches)
