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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffugen.config.dataset import DatasetConfig
from diffugen.config.jobs import load_jobs
from diffugen.config.loader import Strict, load_config, uncommented, validate
from diffugen.errors import UserError
from textual_inversion.config import ConceptRunConfig
from train_loop import RunConfig, load_run_config

NOT_PER_EXAMPLE = [HealthCheck.function_scoped_fixture]
fuzzed = settings(max_examples=30, suppress_health_check=NOT_PER_EXAMPLE)
mutating = settings(suppress_health_check=NOT_PER_EXAMPLE)
"""As many examples as the profile says: `--hypothesis-profile=bar` has 10,000, see conftest.py."""

PROMPTS = {
    "templates": [{"text": "a {rare} {time}"}, "a {common}"],
    "objects": {"rare": {"piano": ["<piano>"]}, "common": {"car": "red car"}},
    "attributes": {"time": ["at night", ""]},
}
CONCEPT = {"placeholder_token": "<piano>", "initializer_word": "bench", "photos": "photos"}
REDRAWN = {"kind": "img2img", "strength": 1.0, "templates": ["{source}, sunny"], "num_images": 2}
REPAINTED = {"kind": "inpaint", "strength": 1.0, "templates": {"a red {object}": 1}, "num_images": 2}
MASK2FORMER = {"model": "some/mask2former", "class_map": {"car": ["truck", "bus"]}}
VALID: dict[type[Strict], dict[str, Any]] = {
    DatasetConfig: {"model": {"path": "some/model"}, "prompts": PROMPTS, "num_images": 3},
    ConceptRunConfig: {"model": {"path": "some/model"}, "concept": CONCEPT},
    RunConfig: {
        "name": "piano",
        "classes": ["piano", "car"],
        "rare_classes": ["piano"],
        "model": {"path": "some/model"},
        "prompts": PROMPTS,
        "concept": CONCEPT,
        "detector": {"base_weights": "base.pt"},
        "pool": {"folder": "photos", "captions": ["a <piano>"], "objects": {"piano": "<piano>"}},
        "evaluation": {"dataset": "truth"},
        "rounds": {"variations": [REDRAWN, REPAINTED], "filter": {"mask2former": MASK2FORMER}},
    },
}
JOINT = {
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

CLASS_NAMES = re.compile(r"\b\w*(Config|Strict|Concepts|Mapping|Annotated|Discriminator)\b|pydantic|NoneType")

LOOPS = ("demo", "plain-word", "grand-piano-sd15")
DATASETS = ("generate", "img2img", "inpaint")
FIRST_RELEASE = {
    "dataset_name": "cars",
    "image_size": {"width": 64, "height": 64},
    "dataset_classes": ["car"],
    "label_model": {"type": "YOLOSeg", "weights": "seg.pt"},
    "unsupervised": False,
    "dataset_to_model_class_map": {"car": "car"},
    "txt2img": {
        "stable_diffusion_model": "somebody/some_model",
        "seed_range": {"min": 1, "max": 9},
        "object_names": ["car"],
        "prompts": ["a {view_point} view of a {object_name}"],
        "view_points": ["front"],
        "textual_inversion": {"weights": "x.pt", "keyword": "car"},
    },
    "img2img": {"source_dataset": "x", "times_of_day": ["night"]},
    "inpaint": {"car": ["bus"]},
}
NAMES = ["seed", "classes", "model.path", "prompts.objects.rare", "rounds.variations.0.kind", "concept.0.steps"]
NAMES += ["generate.attention.blocks", "label", "pool", "txt2img.prompts", "task.kind", "0", "$schema", "// x"]

every_config = pytest.mark.parametrize("schema", VALID, ids=lambda schema: schema.__name__)
texts = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs", "Cc"]), max_size=12)
words = st.from_regex(r"[a-z]{1,8}( [a-z]{1,8})?", fullmatch=True)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


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


ROOT = Path(__file__).parents[1]
BASES: dict[str, list[dict[str, Any]]] = {
    "loop": [
        VALID[RunConfig],
        *(uncommented(json.loads((ROOT / f"configs/{name}.json").read_text())) for name in LOOPS),
    ],
    "concept": [VALID[ConceptRunConfig]],
    "dataset": [
        VALID[DatasetConfig],
        *(uncommented(json.loads((ROOT / f"configs/{name}.json").read_text())) for name in DATASETS),
        FIRST_RELEASE,
    ],
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every group and list with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def mutated(draw: st.DrawFn, kind: str) -> str:
    """A config with a few changes anywhere: values of other kinds, keys renamed, doubled, moved or gone."""
    values: Any = copy.deepcopy(draw(st.sampled_from(BASES[kind])))
    for _ in range(draw(st.integers(1, 4))):
        if not (every := list(places(values))):
            break
        owner, key = every[draw(st.integers(0, len(every) - 1))]
        change = draw(st.sampled_from(["replace", "replace", "remove", "rename", "copy", "nest", "text"]))
        if change == "replace":
            owner[key] = draw(anything)
        elif change == "remove":
            del owner[key]
        elif change == "rename" and isinstance(owner, dict):
            owner[draw(st.sampled_from(NAMES) | st.text(max_size=5))] = owner.pop(key)
        elif change == "copy":
            other, there = every[draw(st.integers(0, len(every) - 1))]
            owner[key] = copy.deepcopy(other[there]) if there in (other if isinstance(other, dict) else ()) else None
        elif change == "nest":
            owner[key] = draw(st.sampled_from([[owner[key]], {"kind": owner[key]}, {str(key): owner[key]}]))
        else:
            owner[key] = draw(st.text(max_size=20))
    return json.dumps(values)


@pytest.mark.parametrize("kind", BASES)
@mutating
@given(data=st.data())
def test_mutated_configs_are_accepted_or_refused_in_sentences(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """Read and checked as the commands do it, but for what needs the model."""
    path = tmp_path / "config.json"
    path.write_text(data.draw(mutated(kind)), encoding="utf-8", errors="surrogatepass")
    override = data.draw(st.none() | st.builds("{}={}".format, st.sampled_from(NAMES), st.text(max_size=6)))
    check_refused(kind, path, [] if override is None else [override])


def check_refused(kind: str, path: Path, overrides: list[str]) -> None:
    """Read a config as the command does; where it is refused, the sentences are short and name no class of ours."""
    try:
        if kind == "loop":
            load_run_config(path, overrides)
        elif kind == "concept":
            load_config(path, ConceptRunConfig, overrides)
        else:
            load_jobs(path, overrides)
    except UserError as error:
        for line in getattr(error, "mistakes", (str(error),)):
            assert len(line) < 1000 and not CLASS_NAMES.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", line)), line


keys = st.lists(st.sampled_from(NAMES) | st.text(max_size=6) | st.integers(0, 9).map(str), min_size=1, max_size=3)
odd_values = st.sampled_from(["1" * 5000, "[" * 100_000, "NaN", "-Infinity", '{"a": 1, "a": 2}', '"\\ud800"', "", "~x"])
overrides = st.builds(
    "{}{}".format, keys.map(".".join), (st.text(max_size=6) | anything.map(json.dumps) | odd_values).map("={}".format)
)


@pytest.mark.parametrize("kind", BASES)
@mutating
@given(data=st.data())
def test_any_overrides_are_accepted_or_refused_in_sentences(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data.draw(st.sampled_from(BASES[kind]))), encoding="utf-8")
    check_refused(kind, path, data.draw(st.lists(overrides, min_size=1, max_size=3)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"num_images": ' + "1" * 5000 + "}", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"model": {"path": "' + "x" * 5000 + '"}}', "setting 'prompts' is missing"),
        ('{"model": {"path": "~nobody-of-this-name/model"}}', "setting 'model.path'"),
        ('{"model": {"path": "m", "lora": "~nobody-of-this-name/lora"}}', "setting 'model.lora'"),
        ('{"model": {"path": "./\\u0000"}}', "setting 'model.path'"),
        ('{"model": {"model.path": "m"}}', "unknown setting 'model.model.path'"),
    ],
    ids=["huge number", "deep", "long path", "unknown home", "unknown home of a file", "null byte", "dotted key"],
)
def test_strange_values_are_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_config(tmp_path / "config.json", DatasetConfig)
