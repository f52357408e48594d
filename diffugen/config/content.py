"""Comparing configs by what their paths lead to: a run that was moved or copied with its inputs resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffugen.config.errors import first_difference

SAMPLE = 64 * 1024
MAX_SAMPLED = 256
_OTHERS = {".cache", ".npy"}  # what ultralytics leaves in datasets


def fingerprint(path: Path) -> str:
    """What identifies the content of a file or folder, wherever it lies.

    That is the names and sizes of all files, and of up to 256 of them the bytes at the start, in the middle and at the
    end: weights of many gigabytes and datasets of many images take a moment. Hidden files do not count.
    """
    digest = hashlib.sha256()
    files = sorted(_files(path)) if path.is_dir() else [("", path)]
    every = -(-len(files) // MAX_SAMPLED)
    for number, (name, file) in enumerate(files):
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        if number % every == 0:
            for part in _samples(file, size):
                digest.update(part)
    return digest.hexdigest()


def fingerprints(values: Any) -> dict[str, str]:
    """The fingerprints of all files and folders that a resolved config names, by dotted key."""
    return {key: fingerprint(Path(path)) for key, path in _paths(values)}


def first_change(before: Any, now: Any, content: Mapping[str, str]) -> str | None:
    """The first difference between two resolved configs, as a sentence begins with it; paths count by their content.

    Args:
        before: the config that a folder was started with, as JSON.
        now: the config that it is to resume with.
        content: `fingerprints(before)` of then; a path that is not in it counts by its name.
    """
    difference = first_difference(before, renamed(now, before, content))
    if difference is not None:
        return difference
    for key, path in _paths(now):
        if key in content and fingerprint(Path(path)) != content[key]:
            return f"the content of setting {key!r} ({path}) changed"
    return None


def renamed(now: Any, before: Any, content: Mapping[str, str], key: str = "") -> Any:
    """The config `now` with the names that its paths had `before`, where they still have the same content.

    Args:
        now, before, content: as for `first_change`.
        key: dotted key of the two in their configs.
    """
    if isinstance(now, dict) and isinstance(before, dict):
        return {name: renamed(value, before.get(name), content, _below(key, name)) for name, value in now.items()}
    if isinstance(now, list) and isinstance(before, list):
        others = [*before, *[None] * len(now)]
        return [renamed(value, others[index], content, _below(key, index)) for index, value in enumerate(now)]
    if now == before or key not in content or not _is_path(now):
        return now
    return before if fingerprint(Path(now)) == content[key] else now


def _below(key: str, name: str | int) -> str:
    return f"{key}.{name}" if key else str(name)


def _paths(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, dict | list):
        for name, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _paths(value, _below(key, name))
    elif _is_path(values):
        yield key, values


def _is_path(value: Any) -> bool:
    """Whether a text is the path of something; a resolved config has absolute ones only."""
    try:
        return isinstance(value, str) and Path(value).is_absolute() and Path(value).exists()
    except (OSError, ValueError):  # too long, a null byte
        return False


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix not in _OTHERS and not any(part.startswith(".") for part in name.parts) and path.is_file():
            yield name.as_posix(), path


def _samples(file: Path, size: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        if size <= 3 * SAMPLE:
            yield stream.read()
            return
        for start in (0, size // 2, size - SAMPLE):
            stream.seek(start)
            yield stream.read(SAMPLE)
