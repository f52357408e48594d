"""Fuzzed configs of all three packages: valid ones are accepted, others get a sentence that names the key."""

from __future__ import annotations

import copy
import functools
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_fuzzing import CLASS_NAMES, VALID, anything, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from diffugen.config.loader import Strict, load_config, validate
from diffugen.errors import UserError
from textual_inversion.config import ConceptRunConfig

JOINT = {
    "executor.address",
    "executor.kind",
    "label.outline.method",
    "label.outline.model",
    "model.lora",
    "concept.lora_rank",
    "num_images",
    "num_images_per_prompt",
    "prompts.mode",
    "prompts.templates.0.text",
    "rounds.variations.0.kind",
    "rounds.variations.1.kind",
    "rounds.variations.0.strength",
    "rounds.variations.1.strength",
}
"""Settings whose values other settings limit."""

every_config = pytest.mark.parametrize("schema", VALID, ids=lambda schema: schema.__name__)
texts = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs", "Cc"]), max_size=12)
words = st.from_regex(r"[a-z]{1,8}( [a-z]{1,8})?", fullmatch=True)


def leaves(schema: dict[str, Any], given: Any, definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dotted key and JSON schema of every plain setting: no lists of values and no maps.

    Optional groups count if they are given, or have no setting that must be; lists of groups as they are given.
    """
    for name, inner in schema.get("properties", {}).items():
        below = given.get(name) if isinstance(given, dict) else None
        options = [definitions[o["$ref"].rpartition("/")[2]] for o in (inner, *inner.get("anyOf", [])) if "$ref" in o]
        if "discriminator" in inner and below is not None:
            options = [definitions[inner["discriminator"]["mapping"][below["kind"]].rpartition("/")[2]]]
        if "$ref" in inner.get("items", {}) and below is not None:
            numbered = {str(number): inner["items"] for number in range(len(below))}
            options = [{"properties": numbered}]
            below = dict(zip(numbered, below, strict=True))
        for group in options:
            if below is not None or "required" not in group:
                yield from ((f"{name}.{key}", leaf) for key, leaf in leaves(group, below, definitions))
        kinds = {option.get("type") for option in inner.get("anyOf", [inner])}
        if kinds & {"string", "number", "integer", "boolean"}:
            yield name, inner


@functools.cache
def settings_of(schema: type[Strict]) -> dict[str, dict[str, Any]]:
    root = schema.model_json_schema()
    return dict(leaves(root, VALID[schema], root["$defs"]))


def valid_values(leaf: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever the published schema allows."""
    if "anyOf" in leaf:
        return st.one_of([valid_values(option) for option in leaf["anyOf"] if "$ref" not in option])
    if "enum" in leaf or "const" in leaf:
        return st.sampled_from(leaf.get("enum") or [leaf["const"]])
    if leaf["type"] in ("integer", "number"):
        low, high = leaf.get("minimum", leaf.get("exclusiveMinimum", -1000)), leaf.get("maximum")
        high = leaf.get("exclusiveMaximum", low + 10_000) if high is None else high
        if leaf["type"] == "integer":
            step = leaf.get("multipleOf", 1)
            first, last = -(-low // step), (high - ("exclusiveMaximum" in leaf)) // step
            return st.integers(first + (first * step == leaf.get("exclusiveMinimum")), last).map(lambda n: n * step)
        return st.floats(low, high, exclude_min="exclusiveMinimum" in leaf, exclude_max="exclusiveMaximum" in leaf)
    if "pattern" in leaf:
        return st.from_regex(leaf["pattern"].rstrip("$").removeprefix("^"), fullmatch=True, alphabet=string.printable)
    plain = {"null": st.none(), "boolean": st.booleans()}
    return plain.get(leaf["type"], texts.filter(lambda text: len(text) >= leaf.get("minLength", 0)))


def invalid_values(leaf: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What the published schema forbids: other types, and numbers and texts that are out of range."""
    options = leaf.get("anyOf", [leaf])
    wrong: list[Any] = [[], {"a": 1}, [1]]
    for option in options:
        if option.get("type") in ("integer", "number"):
            wrong += [True, "many", float("nan"), float("inf")]
            wrong += [option[key] - 1 for key in ("minimum", "exclusiveMinimum") if key in option]
            wrong += [option[key] + 1 for key in ("maximum", "exclusiveMaximum") if key in option]
            wrong += [option[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if key in option]
            wrong += [option["multipleOf"] * 100 + 1] if "multipleOf" in option else []
        if "enum" in option:
            wrong += ["no such", 7, True]
        if option.get("type") == "string" and "enum" not in option:
            wrong += [7, False]
    return st.sampled_from(wrong)


def replaced(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(values)
    *groups, last = key.split(".")
    target: Any = values
    for group in groups:
        target = target[int(group)] if isinstance(target, list) else target.setdefault(group, {})
    target[int(last) if isinstance(target, list) else last] = value
    return values


@st.composite
def prompts(draw: st.DrawFn) -> dict[str, Any]:
    """Templates with object and attribute slots that keep all rules between them."""
    names = draw(st.lists(st.from_regex(r"[A-Za-z_]\w{0,5}", fullmatch=True), min_size=2, max_size=5, unique=True))
    num_objects = draw(st.integers(1, len(names) - 1))
    objects = {
        slot: draw(
            st.dictionaries(words, st.lists(words, min_size=1, max_size=3, unique=True), min_size=1, max_size=3).filter(
                lambda classes: (
                    len({phrase for p in classes.values() for phrase in p}) == sum(map(len, classes.values()))
                )
            )
        )
        for slot in names[:num_objects]
    }
    lists = st.lists(texts, min_size=1, max_size=3, unique=True)
    weights = st.dictionaries(texts, st.floats(0.1, 9), min_size=1, max_size=3)
    attributes = {slot: draw(lists | weights) for slot in names[num_objects:]}
    templates = [
        {"text": f"{draw(texts)} {{{slot}}} {draw(texts)}", "weight": draw(st.floats(0.1, 9))} for slot in names
    ]
    return {"templates": templates, "objects": objects, "attributes": attributes}


def check_sentence(error: UserError, key: str) -> None:
    """A line for each mistake; one names the setting, or a group of settings that it is in; none names a class."""
    parts = key.split(".")
    assert any(f"'{'.'.join(parts[:end])}" in str(error) for end in range(1, len(parts) + 1)), str(error)
    check_lines(error)


def check_lines(error: UserError) -> None:
    lines = getattr(error, "mistakes", (str(error),))
    for line in lines:
        assert "\n" not in line and len(line) < 500, line
        assert not CLASS_NAMES.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", line)), line
        assert line.startswith(("setting '", 'setting "', "unknown setting ", "config ")), line


@every_config
@fuzzed
@given(data=st.data())
def test_every_valid_config_is_accepted(schema: type[Strict], data: st.DataObject, tmp_path: Path) -> None:
    known = settings_of(schema)
    values = VALID[schema]
    for key in data.draw(st.lists(st.sampled_from(sorted(set(known) - JOINT)), max_size=8, unique=True)):
        values = replaced(values, key, data.draw(valid_values(known[key]), label=key))
    if schema is ConceptRunConfig and not values["concept"].get("initializer_word"):
        values = replaced(values, "concept.initializer_word", "bench")  # only a loop chooses one itself
    if data.draw(st.booleans()) and "concept" not in values and "prompts" in values:
        values = {**values, "prompts": data.draw(prompts())}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = load_config(tmp_path / "config.json", schema)
    again = validate(json.loads(config.model_dump_json()), schema)  # what config.json of a run holds
    assert again.model_dump() == config.model_dump()


@every_config
@fuzzed
@given(data=st.data())
def test_a_wrong_value_is_named_with_its_key(schema: type[Strict], data: st.DataObject) -> None:
    known = settings_of(schema)
    key = data.draw(st.sampled_from(sorted(known)))
    value = data.draw(invalid_values(known[key]), label=key)
    with pytest.raises(UserError, match=key.rpartition(".")[2]) as error:
        validate(replaced(VALID[schema], key, value), schema)
    assert f"setting '{key}" in str(error.value)
    check_sentence(error.value, key)


@every_config
@fuzzed
@given(data=st.data())
def test_unknown_and_missing_settings_are_named(schema: type[Strict], data: st.DataObject) -> None:
    groups = {key.rpartition(".")[0] for key in settings_of(schema)}
    group = data.draw(st.sampled_from(sorted(groups)))
    unknown = f"{group}.{data.draw(st.from_regex(r'[a-z]{3,9}_x', fullmatch=True))}".lstrip(".")
    with pytest.raises(UserError, match="unknown setting") as error:
        validate(replaced(VALID[schema], unknown, 1), schema)
    assert f"'{unknown}'" in str(error.value)
    required = schema.model_json_schema()["required"]
    missing = data.draw(st.sampled_from(required))
    with pytest.raises(UserError, match=f"setting '{missing}'.* is missing"):
        validate({key: value for key, value in VALID[schema].items() if key != missing}, schema)


@every_config
@fuzzed
@given(data=st.data())
def test_anything_anywhere_is_accepted_or_refused_in_a_sentence(schema: type[Strict], data: st.DataObject) -> None:
    """No value at any place makes a traceback, whatever its type."""
    structured = ["prompts.templates", "prompts.objects", "prompts.attributes", "prompts.objects.rare", "prompts"]
    structured += ["classes", "rare_classes", "generate.attention.factors", "generate.attention", "concept.templates"]
    structured += ["concept", "model", "pool", "pool.objects", "rounds", "rounds.filter", "model.embeddings"]
    structured += ["rounds.variations", "rounds.variations.1", "rounds.variations.0.templates", "labelled"]
    structured += ["rounds.filter.mask2former", "rounds.filter.mask2former.class_map", "task", "num_images_per_class"]
    in_this = [key for key in structured if key.split(".")[0] in schema.model_fields]
    key = data.draw(st.sampled_from([*sorted(settings_of(schema)), *in_this, *in_this]))
    values = replaced(VALID[schema], key, data.draw(anything, label=key))
    try:
        validate(values, schema, folder=Path("."))
    except UserError as error:
        check_lines(error)


@every_config
@fuzzed
@given(content=st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()))
def test_no_file_makes_a_traceback(schema: type[Strict], content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="config|setting"):
        load_config(path, schema)
