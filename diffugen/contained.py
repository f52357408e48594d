"""Folders that may be somebody else's: nothing outside them is read or written by way of them."""

from __future__ import annotations

import os
from itertools import chain, repeat
from pathlib import Path, PurePath
from typing import Any

from diffugen.errors import UserError
from diffugen.naming import text_of


def check_contained(folder: Path, what: str, *, within: Path | None = None, passed_over: str = "") -> None:
    """Check that no link in a folder leads out of it, and that it holds nothing but files and folders.

    Args:
        folder: to be read, or to be gone on in.
        what: it is, for messages.
        within: the folder that links may not leave, by default `folder`.
        passed_over: a folder in `folder`, if it is no link itself, that nothing reads.

    Raises:
        UserError: a link does, or there is a pipe or a device, which a reader would wait for.
    """
    root = os.path.realpath(within or folder)
    for above, folders, files in os.walk(folder):
        for name, is_file in chain(zip(folders, repeat(False)), zip(files, repeat(True))):
            path = os.path.join(above, name)
            if os.path.islink(path):
                if not Path(os.path.realpath(path)).is_relative_to(root):
                    raise UserError(
                        f"{text_of(path)} is a symbolic link that leads out of the {what}; put a copy of what it leads "
                        "to in its place, or remove it"
                    )
            elif is_file and not os.path.isfile(path) and os.path.exists(path):
                raise UserError(f"{text_of(path)} is no regular file, such as a {what} has; remove it")
        if passed_over and os.path.samefile(above, folder):
            folders[:] = [name for name in folders if name != passed_over]


def file_inside(folder: Path, name: Any) -> Path:
    """The file that a record in a folder names, relative to the folder.

    Raises:
        ValueError: it is no relative path, or leads out of the folder.
    """
    if not is_inside(name):
        raise ValueError(f"{name!r} is no file in {folder}")
    return folder / name


def is_inside(name: Any) -> bool:
    """Whether a record's name of a file, relative to its folder, is one that leads nowhere else."""
    return (
        isinstance(name, str)
        and name not in ("", ".")
        and "\0" not in name
        and not PurePath(name).is_absolute()
        and ".." not in PurePath(name).parts
    )
