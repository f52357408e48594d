"""Whatever is wrong in a config, one sentence per mistake: the setting, its value, the remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_MAX_VALUE_LENGTH = 80  # longer values are cut in messages

_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a JSON object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "list_type": "a list",
    "model_attributes_type": "a group of settings",
    "model_type": "a group of settings",
    "multiple_of": "a multiple of {multiple_of}",
    "none_required": "null",
    "path_type": "a path",
    "string_pattern_mismatch": "a name of the pattern {pattern}",
    "string_too_short": "a text of at least {min_length} character",
    "string_type": "a text",
    "string_unicode": "a text of valid characters",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
"""pydantic's types of errors -> what a value must be; pydantic's own words name classes of ours."""

_SCALAR_ERRORS = {name for name in _WANTED if name.startswith(("bool", "finite", "float", "greater", "int", "less"))}
_SCALAR_ERRORS |= {"literal_error", "multiple_of"}


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
    """One mistake that a rule over several settings finds.

    Args:
        key: dotted key of the setting, relative to the model that has the rule; empty in a rule of the setting itself.
        message: completes the sentence "setting '<key>' ...": what is wrong and the remedy.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key} {message}".strip())
        self.key, self.message = key, message


class EmptyPath(ValueError):
    """A path or name of a file that has no characters."""


class WrongType(SettingError):
    """A value of a kind that its setting never takes."""


class SettingErrors(ValueError):
    """All mistakes that the rules of one model find."""

    def __init__(self, errors: Sequence[SettingError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.errors = tuple(errors)


def require(mistakes: Iterable[SettingError]) -> None:
    """Raise all mistakes of a model's rules together; for use in validators.

    Raises:
        SettingErrors: there is at least one.
    """
    if found := list(mistakes):
        raise SettingErrors(found)


def within(group: str, mistakes: Iterable[SettingError]) -> Iterator[SettingError]:
    """The same mistakes, their keys relative to the model above the group."""
    return (SettingError(f"{group}.{error.key}", error.message) for error in mistakes)


def find_mistakes(values: Any, schema: type[BaseModel], context: Mapping[str, Any]) -> list[str]:
    """A sentence for every mistake of a config; none if it is valid.

    Rules over several settings run only where all settings are valid. So that mistakes do not hide each other, unknown
    settings and wrong numbers and choices are left out, and the rest is validated again.
    """
    values = json.loads(json.dumps(values, default=str))  # a copy
    sentences: dict[str, None] = {}
    suggested: set[str] = set()
    left_out: list[str] = []
    while True:
        try:
            schema.model_validate(values, context=dict(context))
            break
        except ValidationError as error:
            problems = error.errors()
        found = _sentences(problems, schema, values, suggested)
        sentences |= dict.fromkeys(text for text in found if not text.startswith(tuple(left_out)))
        targets = [target for problem in problems for target in _removable(problem, schema, values)]
        removed = False
        for key, owner, name in targets:
            removed |= name in owner
            owner.pop(name, None)
            left_out.append(f"setting {key!r}")  # that it is missing now is no mistake
        if not removed:
            break
    return list(sentences)


def _sentences(problems: Sequence[Any], schema: type[BaseModel], values: Any, suggested: set[str]) -> Iterator[str]:
    """Unknown settings first: what such a one was probably meant to be (`suggested`) is not missing as well."""
    for problem in problems:
        if problem["type"] == "extra_forbidden":
            text, meant = _unknown(_location(problem["loc"], values), schema)
            suggested.add(meant)
            yield text
    wanted: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for problem in problems:
        location = _location(problem["loc"], values, keep_last=problem["type"] == "missing")
        key = _dotted(location) or "config"
        if problem["type"] in _WANTED:
            wanted.setdefault(key, []).append(_wanted(problem))
            given[key] = problem["input"]
        elif problem["type"] == "missing" and key not in suggested:
            yield f"setting {key!r} is missing; add it to the config"
        elif problem["type"].startswith("union_tag_"):
            yield _wrong_tag(problem, key)
        elif problem["type"] == "value_error":
            yield from _broken_rules(problem, location, schema)
    for key, options in wanted.items():  # one sentence where a setting takes several kinds of values
        yield f"setting {key!r} is {_shown(given[key])}, but must be {' or '.join(dict.fromkeys(options))}"


def _wanted(problem: Any) -> str:
    limits = problem.get("ctx", {}).items()
    plain = {name: int(limit) if isinstance(limit, float) and limit.is_integer() else limit for name, limit in limits}
    return _WANTED[problem["type"]].format(**plain)


def _broken_rules(problem: Any, location: Location, schema: type[BaseModel]) -> Iterator[str]:
    cause = problem["ctx"]["error"]
    key = _dotted(location) or "config"
    if isinstance(cause, EmptyPath):
        yield f"setting {key!r} is empty; {_how_to_fill(location, schema)}"
    elif not isinstance(cause, SettingError | SettingErrors):
        yield f"setting {key!r}: {cause}"
    else:
        for error in cause.errors if isinstance(cause, SettingErrors) else [cause]:
            yield f"setting {_dotted([*location, *filter(None, [error.key])])!r} {error.message}"


def _how_to_fill(location: Location, schema: type[BaseModel]) -> str:
    """What belongs into an empty setting, as its description begins."""
    *group, name = _names(location)
    fields = [model.model_fields[name] for model in _models_at(schema, group) if name in model.model_fields]
    wanted = next((field.description for field in fields if field.description), "a path").partition(";")[0]
    return f"fill in: {wanted}" + ("" if any(field.is_required() for field in fields) else ", or leave it out")


def _wrong_tag(problem: Any, key: str) -> str:
    """The setting that chooses among several groups of settings is missing or names none of them."""
    details = problem["ctx"]
    name = f"{key}.{details['discriminator'].strip(chr(39))}"
    if problem["type"] == "union_tag_not_found":
        return f"setting {name!r} is missing; add it, it says what the other settings there mean"
    return f"setting {name!r} is {_shown(details['tag'])}, but must be one of {details['expected_tags']}"


Location = Sequence[int | str]
"""Keys of groups, which may look like numbers or have dots of their own, and indices of lists."""


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))


def _names(location: Location) -> list[str]:
    """A location without the indices of lists."""
    return [part for part in location if isinstance(part, str)]


def _location(parts: tuple[int | str, ...], values: Any, keep_last: bool = False) -> list[int | str]:
    """pydantic's location without the names of types that it adds for unions."""
    location: list[int | str] = []
    for depth, part in enumerate(parts):
        is_key = isinstance(values, Mapping) and part in values
        is_index = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if is_key or is_index:
            values = values[part]
        if is_key or is_index or (keep_last and depth == len(parts) - 1):
            location.append(part)
    return location


def _removable(problem: Any, schema: type[BaseModel], values: Any) -> Iterator[tuple[str, dict[Any, Any], int | str]]:
    """The key of what a problem is about, its group and its name there, where the rest can be judged without it."""
    if problem["type"] in ("extra_forbidden", *_SCALAR_ERRORS):
        paths = [_location(problem["loc"], values)]
    elif isinstance(cause := problem.get("ctx", {}).get("error"), SettingErrors):
        rules = [error for error in cause.errors if isinstance(error, WrongType)]
        paths = [[*_location(problem["loc"], values), error.key] for error in rules]
    else:
        paths = []
    for *group, name in filter(None, paths):
        owner = values
        for part in group:
            owner = owner[part]
        models = _models_at(schema, _names(group))
        known = [model.model_fields[name] for model in models if name in model.model_fields]
        unknown = problem["type"] == "extra_forbidden"
        if isinstance(owner, dict) and (unknown or (known and not any(field.is_required() for field in known))):
            yield _dotted([*group, name]), owner, name  # a name may have dots of its own


def _shown(value: Any) -> str:
    """A value as it would stand in the JSON file."""
    return shortened(json.dumps(value, ensure_ascii=False, default=str))


def shortened(text: str) -> str:
    """A text as messages have it: its end is cut where it is long."""
    return text if len(text) <= _MAX_VALUE_LENGTH else text[:_MAX_VALUE_LENGTH] + "..."


def _unknown(location: Location, schema: type[BaseModel]) -> tuple[str, str]:
    """What to do about an unknown setting, and the key of the setting that was probably meant."""
    key = _dotted(location)
    *group, name = _names(location)
    for model in _models_at(schema, group):
        if name in (renamed := getattr(model, "renamed", {})):
            return f"setting {key!r} {renamed[name]}", ""
    known = list(_known_settings(schema))
    here = [path[-1] for path in known if path[:-1] == tuple(group)]
    by_name = {path[-1]: ".".join(path) for path in known}
    is_elsewhere = not group and name in by_name  # the whole name of a setting, without its group
    if not is_elsewhere and (near := difflib.get_close_matches(name, here, n=1)):
        return f"unknown setting {key!r}; did you mean {near[0]!r}?", _dotted([*location[:-1], near[0]])
    if near := difflib.get_close_matches(name, by_name, n=1):
        return f"unknown setting {key!r}; did you mean {by_name[near[0]]!r}?", by_name[near[0]]
    rest = f", the known names are {', '.join(dict.fromkeys(here))}" if here else ""
    return f"unknown setting {key!r}; remove it{rest}", ""


def _known_settings(schema: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every setting at any depth, without list indices."""
    for name, field in schema.model_fields.items():
        yield (*above, name)
        for model in _models_in(field.annotation):
            yield from _known_settings(model, (*above, name))


def _models_at(schema: type[BaseModel], group: Sequence[str]) -> list[type[BaseModel]]:
    """The models that a group of settings may be, by its path without list indices."""
    models = [schema]
    for name in group:
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        models = [inner for field in fields for inner in _models_in(field.annotation)]
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
