"""The page of all settings, written from the JSON schemas of the three kinds of config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from diffugen.config.dataset import DatasetConfig
from textual_inversion.config import ConceptRunConfig
from train_loop import RunConfig

KINDS = {
    "loop": (RunConfig, "read by `diffugen loop`"),
    "dataset": (DatasetConfig, "read by `diffugen generate`"),
    "concept": (ConceptRunConfig, "read by `diffugen learn`"),
}

Schema = dict[str, Any]


def page() -> str:
    """Markdown: a chapter per kind of config, a table per group of settings; equal groups are written once."""
    parts = [
        "# Config\n\nWritten from the schemas that `diffugen schema` prints. Relative paths in a config start at the "
        "config's folder. A setting without a default is required. Unknown keys are refused.\n"
    ]
    written: dict[str, str] = {}
    for kind, (model, reader) in KINDS.items():
        schema = model.model_json_schema()
        parts.append(f"## {kind.capitalize()} config {{#{kind}}}\n\n{schema.get('description', '')} It is {reader}.\n")
        parts.extend(_groups(kind, "", schema, schema.get("$defs", {}), written))
    return "\n".join(parts)


def _groups(kind: str, key: str, group: Schema, defs: Schema, written: dict[str, str]) -> Iterator[str]:
    """The table of one group of settings, then those of the groups in it."""
    nested: list[tuple[str, str]] = []
    rows = []
    for name, setting in group.get("properties", {}).items():
        dotted = f"{key}.{name}" if key else name
        inner = list(_references(setting))
        links = []
        for reference in inner:
            if reference not in written:
                anchor = f"{kind}-{dotted}-{reference}".lower().replace(".", "-").replace("_", "-")
                written[reference] = anchor
                nested.append((dotted, reference))
            links.append(f"[{_title(reference, inner, defs)}](#{written[reference]})")
        required = name in group.get("required", ())
        default = "required" if required else _default(setting, bool(links))
        meaning = " ".join(filter(None, [_text(setting.get("description", "")), _limits(setting), ", ".join(links)]))
        rows.append(f"| `{dotted}` | {_type(setting, defs)} | {default} | {meaning} |")
    if rows:
        yield "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    for dotted, reference in nested:
        definition = defs[reference]
        heading = f"{dotted}" + ("" if _is_only(reference, group, dotted) else f": {_variant(definition, reference)}")
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


def _title(reference: str, siblings: list[str], defs: Schema) -> str:
    return _variant(defs[reference], reference) if len(set(siblings)) > 1 else "its settings"


def _type(setting: Schema, defs: Schema) -> str:
    """A setting's type in a word or two."""
    if "$ref" in setting:
        return "group"
    for several in ("anyOf", "oneOf"):
        if several in setting:
            names = dict.fromkeys(_type(option, defs) for option in setting[several])
            return " or ".join(names)
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
    if is_group and isinstance(value, dict):
        return ""
    return f"`{json.dumps(value)}`"


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
