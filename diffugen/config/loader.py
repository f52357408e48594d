"""Configs: one strict JSON loader for all packages, and the settings of generating and labelling."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from diffugen.config.errors import EmptyPath, SettingError, SettingErrors, WrongType, find_mistakes, shortened
from diffugen.errors import UserError, raise_mistakes, reason_of
from diffugen.files import read_text
from diffugen.naming import path_trouble
from diffugen.registered import CONFIGS, registered


class Strict(BaseModel):
    """Base of all configs: immutable, unknown keys refused, numbers finite.

    `renamed` says what became of settings of earlier versions: name -> what completes "setting '<key>' ...".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_not_bools(cls, values: Any) -> Any:
        """pydantic would take true for 1."""
        given = values if isinstance(values, Mapping) else {}
        wrong = [
            WrongType(name, f"is {json.dumps(given[name])}, but must be a number")
            for name, field in cls.model_fields.items()
            if isinstance(given.get(name), bool) and _is_number(field.annotation)
        ]
        if wrong:
            raise SettingErrors(wrong)
        return values


def _is_number(annotation: Any) -> bool:
    """Whether a setting is a number, one of some numbers, or null."""
    options = get_args(annotation) or (annotation,)
    return any(option in (int, float) or type(option) is int or _is_number_choice(option) for option in options)


def _is_number_choice(option: Any) -> bool:
    return any(type(choice) is int for choice in get_args(option))


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Relative paths in a config file mean: beside that file."""
    base = _base(value, info)
    if not isinstance(value, str | Path):
        return value
    _check_possible(value)
    return value if base is None else _beside(base, value)


class _Typed(str):
    """A text of the command line: as a path it is relative to the working folder, not to the config's."""


def _base(value: Any, info: ValidationInfo) -> Path | None:
    """The folder that a relative path is taken from."""
    return Path.cwd() if isinstance(value, _Typed) else (info.context or {}).get("folder")


def _typed(value: Any) -> Any:
    """A JSON value of the command line, its texts marked as such."""
    if isinstance(value, dict):
        return {name: _typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return _Typed(value) if isinstance(value, str) else value


def _beside(folder: Path, path: str | Path) -> Path:
    """The absolute path of one that is given relative to a folder, or to somebody's home."""
    try:
        resolved = (Path(folder) / Path(path).expanduser()).resolve()
        resolved.exists()
        return resolved
    except (RuntimeError, OSError) as error:  # an unknown user's home, a loop of links, too long
        raise SettingError("", f"is {_quoted(path)}, which is no path ({reason_of(error)}); give another") from None


def _check_possible(path: str | Path) -> None:
    if not str(path).strip():
        raise EmptyPath
    if trouble := path_trouble(path):
        raise SettingError("", f"is {_quoted(path)}, which {trouble}; give another path")


def _quoted(path: str | Path) -> str:
    return shortened(json.dumps(str(path), ensure_ascii=not str(path).isprintable()))


_NO_EMPTY_PATH = {"type": "string", "pattern": r"\S"}

ConfigPath = Annotated[Path, BeforeValidator(_resolve), WithJsonSchema(_NO_EMPTY_PATH | {"format": "path"})]
"""A path; relative ones are taken from the folder of the config file."""


def _if_local(value: Any, info: ValidationInfo) -> Any:
    """A path that exists beside the config, or starts with a dot or slash, is local; else a hub id."""
    folder = _base(value, info)
    if not isinstance(value, str):
        return value
    _check_possible(value)
    if folder is None:
        return value
    local = os.path.exists(os.path.join(folder, value))
    local = local or value.startswith((".", "/", "~")) or value.endswith(".safetensors")
    return str(_beside(folder, value)) if local else str(value)


HubPath = Annotated[str, BeforeValidator(_if_local), WithJsonSchema(_NO_EMPTY_PATH)]
"""A hub id, or a path as `ConfigPath` has it."""

AnyConfig = TypeVar("AnyConfig", bound=Strict)

COMMENT = "//"
"""What keys begin with that are comments."""

_TEXT_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def load_config(path: Path, schema: type[AnyConfig], overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a JSON config strictly.

    Args:
        path: the JSON file; relative `ConfigPath`s inside it are taken from its folder.
        schema: the config model.
        overrides: `dotted.key=value` strings (list items by their index); values are JSON where they parse as
            JSON, else text; paths among them are relative to the working folder.

    Raises:
        UserError: the file cannot be read, or settings are wrong: one sentence for each mistake, with its key, the
            value, and for an unknown key the nearest known name.
    """
    values = read_config(path)
    for override in overrides:
        apply_override(values, override)
    return validate(values, schema, folder=Path(path).parent, where=f"config {path}")


_KINDS: Mapping[type, str] = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of a config file, without comments and "$schema", not validated yet.

    Keys that begin with "//" are comments, in every group: {"// seed": "any number", "seed": 3}. Those of JSONC are
    passed over too: // to the end of the line, and between /* and */.

    Raises:
        UserError: there is none.
    """
    values = _read(Path(path))
    if not isinstance(values, dict):
        raise UserError(f"config {path} must be a JSON object, not {_KINDS.get(type(values), 'a number')}")
    values.pop("$schema", None)  # for editors
    return values


def uncommented(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `read_config` gives them of a file that has these values."""
    settings: dict[str, Any] = json.loads(json.dumps(values), object_pairs_hook=_group)
    settings.pop("$schema", None)
    return settings


def validate(
    values: dict[str, Any], schema: type[AnyConfig], folder: Path | None = None, *, where: str = "the config"
) -> AnyConfig:
    """Validate a dict of settings as `load_config` does for a file in `folder`."""
    context = {"folder": folder}
    try:
        return schema.model_validate(values, context=context)
    except ValidationError:
        if command := _other_command(values, schema):
            raise UserError(f"this config is one for another command; run `diffugen {command} CONFIG`") from None
        raise_mistakes(where, find_mistakes(values, schema, context))
        raise


def _other_command(values: dict[str, Any], schema: type[Strict]) -> str | None:
    """The command whose configs have these groups of settings, if that is not the one that reads `schema`."""
    from diffugen.config.first_release import is_upstream

    if not (own := _num_misplaced(values, schema)):
        return None
    schemas = {name: entry.load() for name, entry in registered(CONFIGS).items()}
    if schema.__name__ not in [other.__name__ for other in schemas.values()]:  # a script's classes are of __main__
        return None
    if is_upstream(values):
        return "generate"
    misplaced = {name: _num_misplaced(values, other) for name, other in schemas.items()}
    best, *others = sorted(misplaced, key=lambda name: misplaced[name])
    is_plain = misplaced[best] < min(own, *(misplaced[name] for name in others))
    return best if is_plain else None


def _num_misplaced(values: dict[str, Any], schema: type[Strict]) -> int:
    """How many groups of settings a schema does not know, or requires and does not get."""
    fields = schema.model_fields
    missing = sum(field.is_required() and name not in values for name, field in fields.items())
    return missing + sum(name not in fields for name in values)


def _read(path: Path) -> Any:
    if not os.path.exists(path):
        raise UserError(f"config {path} does not exist; give the path of a JSON config")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"  # a FIFO would be waited for
        raise UserError(f"config {path} is {what}; give the path of a JSON config")
    text = _TEXT_OR_COMMENT.sub(_blanked, read_text(path))
    try:
        return json.loads(text, object_pairs_hook=_group)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # no JSON, a number of thousands of digits, too deep
        raise UserError(f"config {path} is not valid JSON ({reason_of(error)}); correct it there") from None


def _blanked(match: re.Match[str]) -> str:
    """Texts as they are, and spaces for a comment, so that places in messages stay right."""
    return match[0] if match[0].startswith('"') else re.sub(r"\S", " ", match[0])


def _group(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A group of settings without its comments; JSON lets the last of two equal keys win in silence."""
    pairs = [(name, value) for name, value in pairs if not name.startswith(COMMENT)]
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"setting {repeated!r} stands twice in one group of the config; keep one of them")
    return values


def apply_override(values: Any, override: str) -> None:
    """Change a setting by `dotted.key=value`, see `load_config`."""
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise UserError(f"--set {shortened(override)!r} must have the form dotted.key=value")
    try:
        value = json.loads(text, object_pairs_hook=_group)
    except UserError:
        raise
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, too deep
        value = text
    while True:
        name, parts = _next_key(values, parts)
        place = name if isinstance(values, dict) else _index(values, name, override)
        if not parts:
            values[place] = _typed(value)
            return
        values = values.setdefault(place, {}) if isinstance(values, dict) else values[place]


def _next_key(values: Any, parts: list[str]) -> tuple[str, list[str]]:
    """The key of a group that a dotted key begins with, and the rest; a key that is there may have dots of its own."""
    for end in range(len(parts), 1, -1):
        if isinstance(values, dict) and (name := ".".join(parts[:end])) in values:
            return name, parts[end:]
    return parts[0], parts[1:]


def _index(values: Any, name: str, override: str) -> int:
    if not isinstance(values, list):
        raise UserError(
            f"--set {shortened(override)!r}: what stands before {shortened(name)!r} is not a group of settings"
        )
    if name not in map(str, range(len(values))):
        raise UserError(f"--set {shortened(override)!r}: {shortened(name)!r} must be an index below {len(values)}")
    return int(name)
