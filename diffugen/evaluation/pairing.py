"""Which image of one dataset is which of another: by path, as far as both have the same folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

_Form = Callable[[PurePosixPath], str]


def same_images(known: Iterable[str], wanted: Sequence[str]) -> dict[str, str]:
    """For each wanted path the known one of the same image, where there is one.

    Equal paths are the same image; then paths that differ in the suffix only; then those that `diffugen` writes for
    one in folders (cam1_0001.png for cam1/0001.png); then those with the same end, the longest first. What could be
    several images is none.

    Args:
        known: paths within a dataset's split, with forward slashes.
        wanted: those of the other dataset.
    """
    left = {key: PurePosixPath(key) for key in known}
    open_keys = {key: PurePosixPath(key) for key in wanted}
    depth = max((len(path.parts) for path in open_keys.values()), default=0)
    matched: dict[str, str] = {}
    ways: list[tuple[_Form, _Form]] = [
        (str, str),
        (_whole, _whole),
        (_whole, _with_suffix),
        (_with_suffix, _whole),
        *((_end(parts), _end(parts)) for parts in range(depth, 0, -1)),
    ]
    for form_left, form_open in ways:
        forms = {key: form_left(path) for key, path in left.items()}
        counts, wanted_counts = Counter(forms.values()), Counter(form_open(path) for path in open_keys.values())
        owner = {form: key for key, form in forms.items() if counts[form] == 1}
        for key, path in list(open_keys.items()):
            form = form_open(path)
            if form in owner and wanted_counts[form] == 1:
                matched[key] = owner[form]
                del left[owner[form]], open_keys[key]
    return matched


def _whole(path: PurePosixPath) -> str:
    return "_".join(path.with_suffix("").parts)


def _with_suffix(path: PurePosixPath) -> str:
    return "_".join(path.parts).replace(".", "_")


def _end(parts: int) -> _Form:
    """The last parts of a path."""
    return lambda path: "_".join(path.with_suffix("").parts[-parts:])
