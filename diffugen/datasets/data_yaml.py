"""data.yaml, which names a YOLO dataset's classes and where the images of its splits are; read as ultralytics does."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from diffugen.errors import UserError
from diffugen.files import read_text

NAME = "data.yaml"
SPLITS = ("train", "val", "test")

_OTHER_KEYS = ("path", "names", "nc", "validation", "channels", "download", "kpt_shape", "flip_idx", "yaml_file")
_MAX_BYTES = 2**20  # the parser takes seconds for each further megabyte
_MAX_NODES = 100_000
"""Values of a file, those that an alias repeats counted each time: nested aliases make exponentially many."""


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says.

    Attributes:
        path: of the file.
        names: class names in the order of their ids.
        splits: by name, in the order train, val, test: folders or lists of images, as they are written.
        root: the key `path`; empty where there is none.
    """

    path: Path
    names: list[str]
    splits: dict[str, list[str]]
    root: str = ""

    def places(self, split: str) -> list[Path]:
        """The folders, text files or images of a split, resolved.

        Raises:
            UserError: the file does not name the split, or a place does not exist.
        """
        if split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise UserError(f"dataset {self.path.parent} has no split {split!r}; its {NAME} names {known}")
        return [self._place(split, text) for text in self.splits[split]]

    def _place(self, split: str, text: str) -> Path:
        folder = self.path.parent
        roots = list(dict.fromkeys([folder / self.root, Path(self.root), folder] if self.root else [folder]))
        for root in roots:
            # Roboflow writes ../train/images for the folder beside the file; so does ultralytics read it
            for name in (text, text.removeprefix("../")):
                try:
                    place = (root / name).resolve()
                    if place.exists():
                        return place
                except (OSError, ValueError, RuntimeError):  # no possible path, or a loop of links
                    continue
        raise UserError(
            f"dataset {folder}: the images of split {split!r} are not at {roots[0] / text}; correct '{split}' "
            f"{'or path ' if self.root else ''}in {self.path}"
        )


def read(root: Path) -> DataYaml:
    """Read and check the data.yaml of a dataset folder.

    Raises:
        UserError: it is missing, no UTF-8 or no YAML, too large, or a value is not what ultralytics takes.
    """
    path = Path(root) / NAME
    if not path.exists():
        raise UserError(f"dataset {root} has no {NAME}; give a folder in YOLO's layout, or a COCO JSON file")
    values = _parse(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys with values, such as `train: images/train`")
    if "val" not in values and "validation" in values:
        values["val"] = values["validation"]
    for key in ("path", *SPLITS):
        value = values.get(key)
        listed = isinstance(value, list) and key != "path" and all(isinstance(entry, str) for entry in value)
        if value is not None and not isinstance(value, str) and not listed:
            kind = "a text" if key == "path" else "a folder, a text file or a list of them"
            raise UserError(f"{path}: '{key}' must be {kind}, not {shortened(value)}")
    splits = {key: value if isinstance(value, list) else [value] for key in SPLITS if (value := values.get(key))}
    return DataYaml(path, _names(path, values), splits, values.get("path") or "")


def check_split_name(split: str) -> None:
    """Check that a data.yaml can have a split of this name.

    Raises:
        UserError: the key means something else there.
    """
    if split in _OTHER_KEYS:
        raise UserError(
            f"a split cannot be called {split!r}, which is a setting of {NAME}; call it otherwise (--split)"
        )


def lines_of(splits: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """The lines of a data.yaml, beside which lies images/<split>.

    There is no `path`: ultralytics then takes the file's own folder, wherever it is called from. It demands
    train and val, so another split stands in for one that is missing.
    """
    if not splits:
        raise UserError("the dataset has no images; give at least one")
    available = {split: f"images/{split}" for split in splits}
    for split, stand_ins in {"train": ("val", "test"), "val": ("train", "test")}.items():
        available.setdefault(split, next(f"images/{s}" for s in (split, *stand_ins, *splits) if s in splits))
    order = sorted(available, key=lambda split: ((*SPLITS, split).index(split), split))
    texts = [(split, json.dumps(available[split], ensure_ascii=False)) for split in order]
    lines = [f"{key if key in SPLITS else json.dumps(key, ensure_ascii=False)}: {place}" for key, place in texts]
    names = (f"  {i}: {json.dumps(name, ensure_ascii=False)}" for i, name in enumerate(class_names))
    return [*lines, "names:", *names]


def shortened(value: Any) -> str:
    """A value for a message; of nested ones only the kind."""
    return "keys with values" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)[:40]


def _names(path: Path, values: Mapping[str, Any]) -> list[str]:
    """The class names, as ultralytics numbers them."""
    names, count = values.get("names"), values.get("nc")
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= _MAX_NODES):
        raise UserError(f"{path}: 'nc' must be the number of classes, not {shortened(count)}")
    if names is None:
        if count is None:
            raise UserError(f"{path} has no `names`; add the class names")
        return [f"class_{number}" for number in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: 'names' must be a list of class names, or number: name, not {shortened(names)}")
    found: dict[int, str] = {}
    for key, name in names.items():
        number = _number(key)
        if number is None:
            raise UserError(f"{path}: 'names' has the key {shortened(key)}; number the classes from 0")
        if number in found:
            raise UserError(f"{path}: 'names' has the number {number} twice; number the classes from 0")
        if not isinstance(name, str | int | float) or isinstance(name, bool) or not str(name).strip():
            raise UserError(f"{path}: the name of class {number} is {shortened(name)}; write a name in quotes")
        found[number] = str(name)
    if missing := set(range(len(found))) - set(found):
        raise UserError(f"{path}: 'names' has {len(found)} classes, but no number {min(missing)}; number them from 0")
    if count is not None and count != len(found):
        raise UserError(f"{path}: 'nc' is {count}, but 'names' has {len(found)} classes; correct one of them")
    ordered = [found[number] for number in range(len(found))]
    check_distinct(ordered, path)
    return ordered


def check_distinct(names: Sequence[str], path: Path) -> None:
    """Refuse class names of which one comes twice: they could not be distinguished.

    Raises:
        UserError: names the file and the class.
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if first.setdefault(name, number) != number:
            raise UserError(f"{path}: the classes {first[name]} and {number} are both called {name!r}; rename one")


def _number(key: Hashable) -> int | None:
    """A class number, quoted or not."""
    text = str(key).strip() if isinstance(key, str | int) and not isinstance(key, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _parse(path: Path) -> Any:
    """The values of a YAML file, if it has no more than a data.yaml can have."""
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path} is larger than {_MAX_BYTES // 2**20} MiB, which no {NAME} is; give another file")
    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters
        node = loader.get_single_node()
        if node is not None and _size(node, {}, path) > _MAX_NODES:
            raise UserError(f"{path} has more than {_MAX_NODES} values once its aliases are written out; remove them")
        return None if node is None else loader.construct_document(node)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for a {NAME}; give another file") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _size(node: Any, known: dict[int, int], path: Path) -> int:
    """Values below a node, aliases written out; an alias of its own parent has no end."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise UserError(f"{path} has an alias that holds itself; remove it")
        return known[id(node)]
    known[id(node)] = 0
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    if isinstance(node, yaml.ScalarNode):
        children = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, path)
    known[id(node)] = 1 + sum(_size(child, known, path) for child in children)
    return known[id(node)]


def _check_keys(node: yaml.MappingNode, path: Path) -> None:
    """Refuse a key that comes twice: YAML's reader would take the last, in silence."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{path}, line {key.start_mark.line + 1}: a key is no text or number; correct it")
        if key.value != "<<" and (key.tag, key.value) in seen:
            raise UserError(f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} comes twice; remove one")
        seen.add((key.tag, key.value))
