"""Names of outputs: one of its own for every input, on every file system.

a.png                         a
a.png, a.jpg                  a_png, a_jpg
day/a.png, night/a.png        day_a, night_a
A.png, a.png                  A_png-28e6ae4e94cb22c2, a_png-7f07... (some file systems ignore case)
caf\\xe9.png (not UTF-8)       caf_xe9
255 bytes                     its first bytes, then a digest of the path: 200 bytes in all
"""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

MAX_BYTES = 200
"""Of a name; suffixes, and prefixes of temporary files, fit into the 255 that file systems allow."""


def unique_names(paths: Sequence[PurePath | str]) -> list[str]:
    """A name for each path: printable, without a folder or suffix, unlike all others even where case does not count.

    A path's name is its stem; where that is not unique, with the folders in front; then with the suffix as well; then
    with a digest of the path. Names depend on the other paths, but not on their order.

    Args:
        paths: relative to the folder that they are listed from.
    """
    files = [PurePath(path) for path in paths]
    forms = [_forms(path, repeat) for path, repeat in zip(files, _repeats(files), strict=True)]
    levels = [0] * len(files)
    while True:
        names = [own[level] for own, level in zip(forms, levels, strict=True)]
        shared: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            shared.setdefault(name_key(name), []).append(index)
        clashes = [group for group in shared.values() if len(group) > 1]
        if not clashes:
            return names
        for group in clashes:  # the simplest of them change
            lowest = min(levels[index] for index in group)
            for index in group:
                if levels[index] == lowest:
                    levels[index] += 1


def text_of(path: PurePath | str) -> str:
    """A path as text for JSON files and messages; bytes that are not UTF-8 as \\xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def path_trouble(path: PurePath | str) -> str:
    """Why no file can be called so, as what follows the path in a message; empty where one can."""
    text = str(path)
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "has a NUL character"
    try:
        os.stat(text)
    except UnicodeEncodeError:
        return "has half a character (a lone surrogate)"
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return f"is no path ({error.strerror})"
    return ""


def is_class_name(name: str) -> bool:
    """Whether a class can be called so: a line of text that can be written, as files have a class per line."""
    return bool(name.strip()) and name.splitlines() == [name] and not any(0xD800 <= ord(c) < 0xE000 for c in name)


def name_key(name: str) -> str:
    """What two names have in common that some file system takes for the same: case and composition do not count."""
    return unicodedata.normalize("NFC", name).casefold()


def _forms(path: PurePath, repeat: int) -> tuple[str, str, str, str]:
    """What a path may be called, the preferred first; the last is unique."""
    folders = [part for part in path.parent.parts if part not in ("/", "..", ".")]
    whole = "_".join([*folders, path.name.replace(".", "_")])
    digest = hashlib.sha256(os.fsencode(path) + (b"/%d" % repeat if repeat else b"")).hexdigest()[:16]
    forms = (path.stem, "_".join([*folders, path.stem]), whole)
    return (*(_fitting(_plain(form), digest) for form in forms), _fitting(f"{_plain(whole)}-{digest}", digest))  # type: ignore[return-value]


def _repeats(paths: Sequence[PurePath]) -> list[int]:
    """How often each path stands in the list before."""
    seen: Counter[PurePath] = Counter()
    repeats = []
    for path in paths:
        repeats.append(seen[path])
        seen[path] += 1
    return repeats


def _plain(name: str) -> str:
    """A name without characters that files of lines, other systems or JSON cannot have."""
    return "".join(_escaped(character) for character in name).strip(". ") or "_"


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"_x{ord(character) - 0xDC00:02x}"
    if character in '/\\:*?"<>|':
        return "_"
    return character if character == " " or character.isprintable() else f"_u{ord(character):x}"


def _fitting(name: str, digest: str) -> str:
    if len(name.encode()) <= MAX_BYTES:
        return name
    return name.encode()[: MAX_BYTES - len(digest) - 1].decode("utf-8", "ignore") + f"-{digest}"
