"""The settings of a loop: how many there are, and that each one says what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffugen.attention.model_defaults import with_model_defaults
from diffugen.config.dataset import DatasetConfig
from diffugen.config.loader import Strict, load_config, validate
from diffugen.config.schema import KINDS, json_schema, schema_of_kind
from textual_inversion.config import ConceptRunConfig
from train_loop import RunConfig

ROOT = Path(__file__).parents[1]
MAX_SETTINGS = 87
SCHEMAS: dict[str, type[Strict]] = {"loop": RunConfig, "concept": ConceptRunConfig, "dataset": DatasetConfig}


def definitions_in(value: Any) -> Iterator[str]:
    """Names of the groups of settings that a setting may be."""
    if isinstance(value, list):
        for item in value:
            yield from definitions_in(item)
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for name, item in value.items():
            if name not in ("properties", "discriminator"):
                yield from definitions_in(item)


def leaves(
    schema: dict[str, Any], definitions: dict[str, Any], above: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every setting that is no group, by its dotted key without list indices."""
    for name, setting in schema["properties"].items():
        groups = [definitions[inner] for inner in definitions_in(setting) if "properties" in definitions[inner]]
        for group in groups:
            yield from leaves(group, definitions, f"{above}{name}.")
        if not groups:
            yield above + name, setting


def settings_of(model: type[Strict]) -> dict[str, dict[str, Any]]:
    schema = model.model_json_schema()
    return dict(leaves(schema, schema["$defs"]))


def test_a_loop_has_few_settings() -> None:
    settings = settings_of(RunConfig)
    assert len(settings) <= MAX_SETTINGS, len(settings)
    assert {"concept.steps", "rounds.filter.mask2former.class_map", "generate.attention.blocks"} <= set(settings)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_setting_has_a_description_and_numbers_a_range(kind: str) -> None:
    for key, setting in settings_of(SCHEMAS[kind]).items():
        assert setting.get("description"), key
        for option in setting.get("anyOf", [setting]):
            if option.get("type") in ("integer", "number") and "enum" not in option and "const" not in option:
                assert {"minimum", "exclusiveMinimum"} & set(option), key
                assert {"maximum", "exclusiveMaximum"} & set(option), key


def test_groups_have_descriptions() -> None:
    for model in SCHEMAS.values():
        for name, setting in model.model_json_schema()["properties"].items():
            assert setting.get("description"), f"{model.__name__}.{name}"


MINIMUM = {
    "name": "grand-piano",
    "classes": ["grand-piano"],
    "model": {"path": "some/model"},
    "concept": {"photos": "photos/grand_piano"},
    "detector": {"base_weights": "base.pt"},
}


def test_six_settings_are_a_loop() -> None:
    """Each of them is needed."""
    config = validate(MINIMUM, RunConfig)
    assert config.concept[0].placeholder_token == "<grand_piano>"
    assert config.rare_classes == ("grand-piano",)
    assert config.prompts.objects == {"rare": {"grand-piano": ("<grand_piano>",)}}
    assert len(config.prompts.texts) == 2
    given = [
        f"{name}.{inner}" if isinstance(MINIMUM[name], dict) else name for name in MINIMUM for inner in MINIMUM[name]
    ]
    assert len(set(given)) <= 6
    for key in set(given):
        group, _, name = key.partition(".")
        if key == "concept.photos":
            continue  # needed where there is a concept
        left = {**MINIMUM, group: {k: v for k, v in MINIMUM[group].items() if k != name}} if name else dict(MINIMUM)
        if not name:
            del left[group]
        with pytest.raises(ValueError, match=f"setting '{key}' is missing"):
            validate(left, RunConfig)


def test_words_are_enough_without_a_concept() -> None:
    values = {name: value for name, value in MINIMUM.items() if name != "concept"}
    assert validate(values, RunConfig).prompts.objects == {"rare": {"grand-piano": ("grand piano",)}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schemas_are_those_of_the_code(kind: str) -> None:
    """`diffugen schema --kind KIND > configs/schemas/KIND.json` writes them."""
    published = json.loads((ROOT / "configs/schemas" / f"{kind}.json").read_text())
    assert published == schema_of_kind(kind) == json_schema(SCHEMAS[kind], published["title"])


EXAMPLES = sorted((ROOT / "configs").glob("*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_for_an_editor_and_for_the_loader(path: Path) -> None:
    values = json.loads(path.read_text())
    kind = Path(values["$schema"]).stem
    load_config(path, SCHEMAS[kind])
    schema = json.loads((path.parent / values["$schema"]).read_text())
    check(values, schema, schema["$defs"], path.stem)


def check(value: Any, schema: dict[str, Any], definitions: dict[str, Any], where: str) -> None:
    """What of JSON schema these schemas use."""
    if "$ref" in schema:
        return check(value, definitions[schema["$ref"].rpartition("/")[2]], definitions, where)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options is not None:
        failures = []
        for option in options:
            try:
                return check(value, option, definitions, where)
            except AssertionError as error:
                failures.append(str(error))
        raise AssertionError(f"{where}: {failures}")
    kinds = {"object": dict, "array": list, "string": str, "number": int | float, "integer": int, "boolean": bool}
    kinds["null"] = type(None)
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), where
    if "const" in schema or "enum" in schema:
        assert value in schema.get("enum", [schema.get("const")]), where
    if isinstance(value, dict):
        known = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), where
        for name, item in value.items():
            inner = known.get(name, schema.get("additionalProperties", True))
            if name not in known and name.startswith("//"):
                continue
            assert inner is not False, f"{where}.{name}"
            if isinstance(inner, dict):
                check(item, inner, definitions, f"{where}.{name}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            check(item, schema.get("items", {}), definitions, f"{where}.{number}")
    return None


def test_schemas_tell_mistakes() -> None:
    schema = schema_of_kind("loop")
    values = json.loads((ROOT / "configs/demo.json").read_text())
    for change in ({"nmae": 3}, {"rounds": {"num_round": 3}}, {"seed": "x"}):
        with pytest.raises(AssertionError, match=next(iter(change))):
            check(values | change, schema, schema["$defs"], "demo")
    check({"//": 1, **values, "// x": {}}, schema, schema["$defs"], "demo")


TOY = ROOT / "diffugen/toyworld/weights/pipeline"


def test_the_demo_has_the_settings_that_its_figures_were_made_with() -> None:
    """Those that are in no config, as they follow from the model or are defaults."""
    config = load_config(ROOT / "configs/demo.json", RunConfig)
    unet = SimpleNamespace(config=SimpleNamespace(sample_size=16))
    pipe = SimpleNamespace(unet=unet, vae_scale_factor=8, name_or_path=str(TOY))
    config = config.resolved(with_model_defaults(config.generate, pipe))
    assert config.generate.size_hw == (128, 128) and config.detector.imgsz == 128
    attention = config.generate.attention
    assert (attention.blocks, attention.factors, attention.self_attention_factor) == (("up",), (1, 2), 1)
    assert [template.weight for template in config.prompts.templates] == [2, 2, 3, 1, 2]
    assert list(config.prompts.attributes) == ["place", "time", "other"]
    assert [len(values) for values in config.prompts.attributes.values()] == [6, 3, 6]
    assert config.detector.learning_rate == 1e-3 and config.concept[0].learning_rate == 5e-3
    assert config.rounds.val_fraction == 0.2
