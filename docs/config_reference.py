"""The page of all settings, written from the JSON schemas of the three kinds of config."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KIND_OF = {"loop": "loop", "generate": "dataset", "learn": "concept"}
"""What a config is called, by the subcommand that reads it."""

Schema = dict[str, Any]


def page() -> str:
    """Markdown: a chapter per kind of config, a table per group of settings; equal groups are written once."""
    parts = [
        "# Config\n\nWritten from the schemas that `diffugen schema` prints. Relative paths in a config start at the "
        "config's folder. A setting without a default is required. Unknown keys are refused.\n"
    ]
    written: dict[str, str] = {}
    for command, schema in schemas().items():
        kind = KIND_OF[command]
        text = _text(schema.get("description", ""), cell=False)
        parts.append(f"## {kind.capitalize()} config {{#{kind}}}\n\nRead by `diffugen {command}`. {text}\n")
        parts.extend(_groups(kind, "", schema, schema.get("$defs", {}), written))
    return "\n".join(parts)


def schemas() -> dict[str, Schema]:
    """The JSON schemas of all kinds of config by the subcommand that reads them, as pyproject.toml lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for command in KIND_OF:
        module, _, name = project["entry-points"]["diffugen.configs"][command].partition(":")
        found[command] = getattr(import_module(module), name).model_json_schema()
    return found


def _groups(kind: str, key: str, group: Schema, defs: Schema, written: dict[str, str]) -> Iterator[str]:
    """The table of one group of settings, then those of the groups in it."""
    nested: list[tuple[str, str]] = []
    rows = []
    for name, setting in group.get("properties", {}).items():
        dotted = f"{key}.{name}" if key else name
        inner = list(dict.fromkeys(_references(setting)))
        for reference in inner:
            if reference not in written:
                written[reference] = f"{kind}-{dotted}-{reference}".lower().replace(".", "-").replace("_", "-")
                nested.append((dotted, reference))
        default = "**required**" if name in group.get("required", ()) else _default(setting, bool(inner))
        meaning = " ".join(filter(None, [_text(setting.get("description", "")), _limits(setting)]))
        rows.append(f"| `{dotted}` | {_linked_type(setting, inner, defs, written)} | {default} | {meaning} |")
    if rows:
        yield "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    for dotted, reference in nested:
        definition = defs[reference]
        heading = f"`{dotted}`" + ("" if _is_only(reference, group, dotted) else f": {_variant(definition, reference)}")
        yield f"### {heading} {{#{written[reference]}}}\n\n{_text(definition.get('description', ''), cell=False)}\n"
        yield from _groups(kind, dotted, definition, defs, written)


def _references(setting: Any) -> Iterator[str]:
    """Names of the groups that a setting holds, in order."""
    if isinstance(setting, dict):
        if "$ref" in setting:
            yield setting["$ref"].rpartition("/")[2]
        for name, value in setting.items():
            if name not in ("discriminator", "default"):
                yield from _references(value)
    elif isinstance(setting, list):
        for value in setting:
            yield from _references(value)


def _is_only(reference: str, group: Schema, dotted: str) -> bool:
    setting = group["properties"][dotted.rpartition(".")[2]]
    return set(_references(setting)) == {reference}


def _variant(definition: Schema, reference: str) -> str:
    kind = definition.get("properties", {}).get("kind", {}).get("const")
    return f"`{kind}`" if kind else reference.removesuffix("Config")


def _linked_type(setting: Schema, inner: list[str], defs: Schema, written: dict[str, str]) -> str:
    """A setting's type, with links to the tables of the groups in it."""
    if len(inner) > 1:
        return ", ".join(f"[{_variant(defs[name], name)}](#{written[name]})" for name in inner)
    text = _type(setting, defs)
    return text.replace("group", f"[group](#{written[inner[0]]})", 1) if inner else text


def _type(setting: Schema, defs: Schema) -> str:
    """A setting's type in a word or two."""
    if "$ref" in setting:
        return "group"
    for several in ("anyOf", "oneOf"):
        if several in setting:
            names = dict.fromkeys(_type(option, defs) for option in setting[several])
            return " or ".join(name for name in names if name != "null")
    if "const" in setting:
        return f"`{json.dumps(setting['const'])}`"
    if "enum" in setting:
        return ", ".join(f"`{json.dumps(value)}`" for value in setting["enum"])
    kind = setting.get("type", "any")
    if kind == "array":
        items = setting.get("items") or (setting.get("prefixItems") or [{}])[0]
        return f"list of {_type(items, defs)}"
    if kind == "object":
        values = setting.get("additionalProperties")
        return f"map to {_type(values, defs)}" if isinstance(values, dict) else "map"
    if setting.get("format") == "path":
        return "path"
    return {"string": "text", "boolean": "true, false"}.get(kind, str(kind))


def _default(setting: Schema, is_group: bool) -> str:
    value = setting.get("default")
    if value is None or value in ([], {}, "") or (is_group and isinstance(value, dict)):
        return ""  # none, or what the description says
    return f"`{round(value, 4) if isinstance(value, float) else json.dumps(value)}`"


def _limits(setting: Schema) -> str:
    """The range of a number, for a reader: (0, 1] for more than 0 and at most 1."""
    options = [setting, *setting.get("anyOf", [])]
    for option in options:
        low = option.get("minimum", option.get("exclusiveMinimum"))
        high = option.get("maximum", option.get("exclusiveMaximum"))
        step = option.get("multipleOf")
        said = []
        if low is not None:
            said.append(f"more than {low}" if "exclusiveMinimum" in option else f"at least {low}")
        if high is not None:
            said.append(f"less than {high}" if "exclusiveMaximum" in option else f"at most {high}")
        if step is not None:
            said.append(f"a multiple of {step}")
        if said:
            return f"({', '.join(said)})"
    return ""


def _text(text: str, *, cell: bool = True) -> str:
    text = text.replace("<", "&lt;")
    return text.replace("|", "\\|").replace("\n", " ") if cell else text
