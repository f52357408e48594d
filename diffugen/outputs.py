"""Where a command may write: into a folder that is new, empty or its own, and never into, above or below its inputs.

A marker, `.diffugen.json`, says which command a folder belongs to. A command that goes on where it was stopped claims
its folder by the marker before anything else (`claim_output`). One that writes all at once writes beside its folder,
then replaces it by rename (`new_output`); the marker lists what it wrote with the sizes, so that files which a person
added or changed since are never replaced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from diffugen.contained import check_contained
from diffugen.errors import UserError, reason_of
from diffugen.files import atomic_path, is_full_disk, is_unfinished, read_json, write_json
from diffugen.lock import locked, locked_beside
from diffugen.naming import text_of
from diffugen.versions import changed_versions, library_versions, version_of

logger = logging.getLogger(__name__)

MARKER = ".diffugen.json"

NOBODYS = (MARKER, ".lock", ".DS_Store", "Thumbs.db", "desktop.ini")
"""Names that do not make a folder somebody's."""

WANDB = "wandb"
"""Weights & Biases' own folder in a run's, which has links; nothing here reads it."""


def check_output(
    out: Path,
    command: str,
    inputs: Iterable[Path] = (),
    *,
    option: str = "--out",
    replaced: bool = True,
    is_earlier: Callable[[Path], bool] = lambda folder: False,
) -> None:
    """Check before any work that a command may write into a folder; nothing is written.

    Args:
        out: the folder.
        command: whose folder it must be, if it is somebody's.
        inputs: files and folders that the command reads; those that do not exist do not count.
        option: what named the folder, for messages.
        replaced: the folder will be replaced by a new one; else the command goes on in it.
        is_earlier: whether a folder without a marker is what an earlier version of the command wrote.

    Raises:
        UserError: it may not; or the command would go on in a folder that leads elsewhere.
    """
    name = f"{option} {text_of(out)}"
    with _no_place(name):
        _check_place(out, name, option)
        _check_inputs(out, inputs, name)
        _check_writable(out.parent if replaced else out, name)
        if not out.is_dir():
            return
        held = [entry for entry in sorted(os.listdir(out)) if entry not in NOBODYS]
        marker = read_marker(out)
        if held and marker is None and not is_earlier(out):
            raise UserError(
                f"{name} has files that diffugen did not write (such as {text_of(held[0])}); move them elsewhere, or "
                "give a new folder"
            )
        if held and marker is not None and marker["command"] != command:
            raise UserError(
                f"{name} holds what `diffugen {marker['command']}` wrote, says its {MARKER}; give a new folder"
            )
        if not replaced:
            check_contained(out, "folder", passed_over=WANDB)
        elif held and marker is not None and (changed := _changed(out, marker.get("files"))):
            raise UserError(
                f"{name} would be replaced, but {changed} was added or changed since `diffugen {command}` wrote it; "
                "move it elsewhere, or give a new folder"
            )


def claim_output(
    out: Path,
    command: str,
    inputs: Iterable[Path] = (),
    *,
    option: str = "--out",
    is_earlier: Callable[[Path], bool] = lambda folder: False,
) -> None:
    """Make a folder the command's own, to write into it and to go on there; see `check_output`.

    The marker records the versions of libraries. Where they have changed since, a warning names both.

    Raises:
        UserError: it may not be.
    """
    check_output(out, command, inputs, option=option, replaced=False, is_earlier=is_earlier)
    name = f"{option} {text_of(out)}"
    with _no_place(name):
        marker = read_marker(out) or {}
        if marker.get("command") != command:
            write_json(out / MARKER, _marker(command) | {"versions": library_versions()})
        elif changed := changed_versions(marker.get("versions") or {}):
            logger.warning(
                "%s was begun with other library versions (%s); what is made now may differ slightly", name, changed
            )


@contextmanager
def claimed_output(
    out: Path,
    command: str,
    inputs: Iterable[Path] = (),
    *,
    is_earlier: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[None]:
    """Make a folder the command's own, see `claim_output`, and keep every other process out of it.

    Raises:
        UserError: it may not be, or another process is at work there; then it is left as it was.
    """
    inputs = list(inputs)
    check_output(out, command, inputs, replaced=False, is_earlier=is_earlier)
    with locked(out):
        claim_output(out, command, inputs, is_earlier=is_earlier)
        yield


@contextmanager
def locked_output(out: Path, *, option: str = "--out") -> Iterator[None]:
    """Keep other processes from writing an output, see `locked_beside`; `new_output` within it does not lock again.

    Raises:
        UserError: another process writes it, or nobody can.
    """
    with ExitStack() as stack:
        with _no_place(f"{option} {text_of(out)}"):
            if not is_unfinished(out):
                stack.enter_context(locked_beside(out))
        yield


@contextmanager
def new_output(out: Path, command: str, inputs: Iterable[Path] = (), *, option: str = "--out") -> Iterator[Path]:
    """Yield an empty folder beside `out`; on success it takes the place of `out` by rename, with a marker.

    Raises:
        UserError: see `check_output`.
    """
    out = Path(out)
    check_output(out, command, inputs, option=option)
    with locked_output(out, option=option), atomic_path(out) as folder:
        with _no_place(f"{option} {text_of(out)}"):
            folder.mkdir(exist_ok=folder == out)  # within an output that is being written, its own folder
        yield folder
        record_files(folder, command)
        check_output(out, command, option=option)  # hours may have passed


def record_files(out: Path, command: str) -> None:
    """Note in the marker what a command added to the folder that it wrote."""
    write_json(out / MARKER, _marker(command) | {"files": dict(_files(out))})


def check_output_file(
    path: Path, inputs: Iterable[Path] = (), *, option: str = "--out", is_own: Callable[[Path], bool]
) -> None:
    """Check before any work that a command may write a file, there or not.

    Args:
        path: the file.
        inputs: see `check_output`.
        option: what named the file, for messages.
        is_own: whether a file that is there is what the command writes, and may be replaced.

    Raises:
        UserError: it may not.
    """
    name = f"{option} {text_of(path)}"
    with _no_place(name):
        if path.is_symlink():
            raise UserError(f"{name} is a symbolic link; give the file that it leads to")
        if path.is_dir():
            raise UserError(f"{name} is a folder; give a file")
        _check_inputs(path, inputs, name)
        _check_writable(path.parent, name)
        if path.exists() and not (path.is_file() and (not path.stat().st_size or is_own(path))):
            raise UserError(f"{name} is there and not what this command writes; give another name, or remove it")


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of a folder; None for one that has none, or one that cannot be read."""
    try:
        marker = read_json(folder / MARKER)
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and isinstance(marker.get("command"), str) else None


def check_own_dataset(path: Path) -> Path | None:
    """Check that a dataset in an output of diffugen's, which may be a stranger's, lies in it with all that it has.

    Returns:
        The resolved folder that nothing of the dataset may lie outside of: the outermost output that `path` lies in.
        None for a dataset that diffugen did not write, whose links are followed.

    Raises:
        UserError: a link in it leads out of the output, or it is one itself.
    """
    path = Path(os.path.abspath(path))
    outputs = [folder for folder in (path, *path.parents) if (folder / MARKER).is_file()]
    if not outputs:
        return None
    root = Path(os.path.realpath(outputs[-1]))
    if not Path(os.path.realpath(path)).is_relative_to(root):
        raise UserError(f"{text_of(path)} leads out of the folder that diffugen wrote, {text_of(root)}; give its place")
    check_contained(path, "folder that diffugen wrote", within=root)
    return root


def paths_in(values: Any) -> Iterator[Path]:
    """The paths among the values of a config (a pydantic model's dump): its inputs."""
    if isinstance(values, Path):
        yield values
    elif isinstance(values, str) and values.startswith(os.sep):  # a hub id or a path, which is absolute then
        yield Path(values)
    elif isinstance(values, dict):
        for value in values.values():
            yield from paths_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from paths_in(value)


def _marker(command: str) -> dict[str, Any]:
    return {"command": command, "version": version_of("diffugen")}


@contextmanager
def _no_place(name: str) -> Iterator[None]:
    """Nobody can write there: a sentence."""
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # also links that lead round in a circle, a NUL character
        if is_full_disk(error):
            raise
        raise UserError(f"{name} cannot be written ({reason_of(error)}); give another place") from None


def _check_place(out: Path, name: str, option: str) -> None:
    if out.is_symlink():
        raise UserError(f"{name} is a symbolic link; give the folder that it leads to")
    if out.exists() and not out.is_dir():
        raise UserError(f"{name} is a file; give a folder")
    if out.resolve() == Path.cwd():
        raise UserError(f"{name} is the working folder; give a folder of its own, such as {option} out")


def _check_inputs(out: Path, inputs: Iterable[Path], name: str) -> None:
    """By identity, not by name: links and other spellings lead to the same folders."""
    above = {_identity(path) for path in _with_parents(out)} - {None}
    itself = _identity(out)
    for path in inputs:
        if _identity(path) in above:
            relation = "is" if _identity(path) == itself else "lies in"
        elif itself and itself in {_identity(parent) for parent in _with_parents(path)}:
            relation = "holds"
        else:
            continue
        raise UserError(
            f"{name} {relation} the input {text_of(path)}; give a place apart from it, such as "
            f"{text_of(_beside(out, out if relation == 'holds' else path))}"
        )


def _beside(out: Path, other: Path) -> Path:
    """A place for an output that is not in `other`."""
    other = other.resolve()
    name = out.resolve().name or "out"
    place = other.parent / (name if other.name != name else f"new-{name}")
    return place if out.is_absolute() else Path(os.path.relpath(place))


def _with_parents(path: Path) -> list[Path]:
    path = path.resolve()
    return [path, *path.parents]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_writable(folder: Path, name: str) -> None:
    there = next(path for path in _with_parents(folder) if path.exists())
    if not there.is_dir():
        raise UserError(f"{name} cannot be written ({text_of(there)} is a file); give another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{name} cannot be written ({text_of(there)} is read-only); give another place")


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Every file below a folder by its relative path, with its size."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*files, *(name for name in folders if os.path.islink(os.path.join(parent, name)))]):
            path = os.path.join(parent, name)
            if name not in NOBODYS and not name.endswith(".cache"):  # of ultralytics
                yield text_of(os.path.relpath(path, folder)), os.lstat(path).st_size


def _changed(out: Path, known: Any) -> str | None:
    """A file that is not as the marker has it."""
    sizes = known if isinstance(known, dict) else {}
    return next((name for name, size in _files(out) if sizes.get(name) != size), None)
