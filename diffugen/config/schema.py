"""JSON schemas of configs, by which editors check and complete them while they are written."""

from __future__ import annotations

from typing import Any

from diffugen.config.loader import COMMENT, Strict
from diffugen.errors import UserError
from diffugen.registered import CONFIGS, registered

KINDS = {"loop": "loop", "concept": "learn", "dataset": "generate"}
"""Kinds of configs, and the subcommand that reads each."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of_kind(kind: str) -> dict[str, Any]:
    """The JSON schema of one of `KINDS`.

    Raises:
        UserError: the package that has such configs is not installed.
    """
    command = KINDS[kind]
    if command not in (known := registered(CONFIGS)):
        raise UserError(f"configs of `diffugen {command}` are not registered; install the package again: pip install .")
    return json_schema(known[command].load(), f"config of `diffugen {command}`")


def json_schema(model: type[Strict], title: str) -> dict[str, Any]:
    """The JSON schema of a config; like the loader it allows comments everywhere, and "$schema"."""
    schema = model.model_json_schema()
    _refine(schema)
    schema["properties"] = {
        "$schema": {"type": "string", "description": "where this schema is"},
        **schema["properties"],
    }
    return {"$schema": _DIALECT, "title": title, **schema}


def _refine(value: Any) -> None:
    """Leave out titles, which only repeat the names of settings and classes, and allow comments in groups."""
    if isinstance(value, list):
        for item in value:
            _refine(item)
    if not isinstance(value, dict):
        return
    if isinstance(value.get("title"), str):
        del value["title"]
    if value.get("type") == "object":
        value["patternProperties"] = {f"^{COMMENT}": {}}
    for name, item in value.items():
        if name == "properties":  # their names are ours: a setting may be called "title"
            for setting in item.values():
                _refine(setting)
        elif name not in ("default", "enum", "const"):
            _refine(item)
