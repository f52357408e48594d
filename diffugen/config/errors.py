"""One sentence for whatever is wrong in a config: the setting, its value, the remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_MAX_VALUE_LENGTH = 80  # longer values are cut in messages


def first_difference(old: Any, new: Any, key: str = "") -> str | None:
    """The first difference between two configs, as "setting 'a.b' changed from 1 to 2", or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            difference = first_difference(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
            if difference is not None:
                return difference
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        differences = (first_difference(*pair, f"{key}.{number}" if key else str(number)) for number, pair in pairs)
        return next((difference for difference in differences if difference is not None), None)
    return None if old == new else f"setting {key!r} changed from {old!r} to {new!r}"


class SettingError(ValueError):
    """For validators of several settings: says which one is wrong, relative to the model they check.

    Args:
        key: dotted key of the setting.
        message: completes the sentence "setting '<key>' ...": what is wrong and the remedy.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key} {message}")
        self.key, self.message = key, message


def sentence(error: ValidationError, schema: type[BaseModel], values: Any) -> str:
    """The first thing that is wrong; unknown names before all: a typo also makes a name go missing."""
    problems = error.errors()
    problem: Any = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    location = _location(problem["loc"], values, keep_last=problem["type"] == "missing")
    key = ".".join(location) or "config"
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; {_suggestion(location, schema)}"
    if problem["type"] == "missing":
        return f"setting {key!r} is missing; add it to the config"
    if problem["type"].startswith("union_tag_"):
        return _wrong_tag(problem, key)
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return f"setting {'.'.join([*location, cause.key])!r} {cause.message}"
    if problem["type"] == "value_error":
        return f"setting {key!r}: {problem['msg'].removeprefix('Value error, ')}"
    message = problem["msg"].replace("valid tuple", "list").replace("valid dictionary", "JSON object")
    if message.startswith("Input should "):
        return f"setting {key!r} is {_shown(problem['input'])} but {message.removeprefix('Input ')}"
    return f"setting {key!r}: {message[0].lower() + message[1:]} (got {_shown(problem['input'])})"


def _wrong_tag(problem: Any, key: str) -> str:
    """The setting that chooses among several groups of settings is missing or names none of them."""
    details = problem["ctx"]
    name = f"{key}.{details['discriminator'].strip(chr(39))}"
    if problem["type"] == "union_tag_not_found":
        return f"setting {name!r} is missing; add it, it says what the other settings there mean"
    return f"setting {name!r} is {_shown(details['tag'])} but should be one of {details['expected_tags']}"


def _location(parts: tuple[int | str, ...], values: Any, keep_last: bool) -> list[str]:
    """pydantic's location without the names of types that it adds for unions."""
    location = []
    for depth, part in enumerate(parts):
        is_key = isinstance(values, Mapping) and part in values
        is_index = isinstance(values, list | tuple) and isinstance(part, int)
        if is_key or is_index:
            values = values[part]
        if is_key or is_index or (keep_last and depth == len(parts) - 1):
            location.append(str(part))
    return location


def _shown(value: Any) -> str:
    """A value as it would stand in the JSON file."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_VALUE_LENGTH else text[:_MAX_VALUE_LENGTH] + "..."


def _suggestion(location: list[str], schema: type[BaseModel]) -> str:
    """The nearest name in the same group of settings, else the nearest anywhere."""
    *group, name = [part for part in location if not part.isdigit()]
    known = list(_known_settings(schema))
    here = [path[-1] for path in known if path[:-1] == tuple(group)]
    if near := difflib.get_close_matches(name, here, n=1):
        return f"did you mean {near[0]!r}?"
    by_name = {path[-1]: ".".join(path) for path in known}
    if near := difflib.get_close_matches(name, by_name, n=1):
        return f"did you mean {by_name[near[0]]!r}?"
    return f"remove it, the known names are {', '.join(here)}" if here else "remove it"


def _known_settings(schema: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every setting at any depth, without list indices."""
    for name, field in schema.model_fields.items():
        yield (*above, name)
        for model in _models_in(field.annotation):
            yield from _known_settings(model, (*above, name))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
