"""Prompts in configs: their forms, their defaults, and the rules between templates, slots and classes."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen.config.dataset import DatasetConfig
from diffugen.config.loader import validate
from diffugen.config.settings import DatasetPromptsConfig, PromptsConfig
from diffugen.errors import UserError


def dataset(**changes: Any) -> dict[str, Any]:
    """A valid DatasetConfig with changes at its top level."""
    prompts = {
        "templates": [{"text": "a {rare} beside a {common} {place}"}, {"text": "a {common}", "weight": 0.5}],
        "objects": {
            "rare": {"piano": ["<piano>", "grand piano"]},
            "common": {"car": ["car"], "tent": ["tent"]},
        },
        "attributes": {"place": ["in a city", ""]},
    }
    return {"model": {"path": "some/hub-id"}, "prompts": prompts, "num_images": 8} | changes


def prompts(**changes: Any) -> dict[str, Any]:
    return dataset()["prompts"] | changes


@pytest.mark.parametrize(
    "templates",
    [
        ["a {thing}", "the {thing}"],
        {"a {thing}": 1, "the {thing}": 1},
        [{"text": "a {thing}"}, "the {thing}"],
    ],
)
def test_templates_are_texts_or_a_map_to_weights(templates: Any) -> None:
    config = validate({"templates": templates, "objects": {"thing": {"car": "car"}}}, PromptsConfig)
    assert config.texts == ["a {thing}", "the {thing}"]
    assert {template.weight for template in config.templates} == {1.0}
    assert config.objects == {"thing": {"car": ("car",)}}
    assert validate(config.model_dump(mode="json"), PromptsConfig) == config


def test_templates_and_common_attributes_have_defaults() -> None:
    alone = validate({"objects": {"rare": {"piano": "piano"}}}, PromptsConfig)
    assert alone.texts == ["a photo of a {rare} {place} {time}", "a photo {place} {time}"]
    both = validate({"objects": {"rare": {"piano": "piano"}, "common": {"car": "car"}}}, PromptsConfig)
    assert [template.weight for template in both.templates] == [5, 3, 2]
    assert set(both.attributes) == {"place", "time"}
    own = validate({"templates": ["a {place}"], "attributes": {"place": ["here"]}}, PromptsConfig)
    assert own.attributes == {"place": ("here",)}
    taken = validate({"templates": ["a {place}"], "objects": {"place": {"town": "town"}}}, PromptsConfig)
    assert taken.attributes == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"templates": []}, "setting 'templates': tuple should have at least 1 item|setting 'templates'"),
        (
            {"templates": [{"text": "a {rare} {common} {plce}"}]},
            r"'templates.0' has the slot \{plce\}, which is in neither .*; did you mean \{place\}\?",
        ),
        (
            {"templates": [{"text": "a {rare} {common} {place} {zzz}"}]},
            r"slot \{zzz\}.*; add it to one of them",
        ),
        (
            {"templates": [{"text": "a {rare} {common} {place"}]},
            "'templates.0' is .* a brace belongs to no slot",
        ),
        (
            {"templates": [{"text": "a {rare} {place}"}]},
            r"'objects.common' is in no template; write \{common\} in one",
        ),
        ({"templates": [{"text": "a {rare} {common}"}]}, "'attributes.place' is in no template"),
        (
            {"templates": [{"text": "a {rare} {common} {place}", "weight": 0}]},
            "'templates.0.weight' is 0, but must be greater than 0",
        ),
        (
            {"templates": [{"text": "a {common} {common} {common} {rare} {place}"}]},
            r"'templates.0' has the slot \{common\} 3 times, but objects.common has fewer classes",
        ),
        ({"templates": [{"text": "a {rare} {rare} {rare} {common} {place}"}]}, r"slot \{rare\} 3 times"),
        (
            {"attributes": {"place": {"here": 1, "there": 0}}},
            "'attributes.place.there' has weight 0.0; weights must",
        ),
        ({"attributes": {"place": {"here": -2}}}, "'attributes.place.here' has weight -2.0"),
        ({"attributes": {"place": []}}, "'attributes.place' has no values"),
        ({"attributes": {"place": {}}}, "'attributes.place' has no values"),
        (
            {"attributes": {"place": ["a", "a"]}},
            "'attributes.place' has the value 'a' twice; .* a map of weights",
        ),
        (
            {"attributes": {"place": ["a", 3]}},
            "setting 'attributes.place.1' is 3, but must be a text",
        ),
        (
            {"attributes": {"place": {"a": "much"}}},
            "setting 'attributes.place.a' is \"much\", but must be a number",
        ),
        (
            {"attributes": {"place": ["{rare}"]}},
            "'attributes.place.0' is '{rare}', but slots are filled in templates",
        ),
        ({"attributes": {"place": ["x"], "rare": ["y"]}}, "'attributes.rare' has the name of an object slot"),
        (
            {"objects": {"rare": {"piano": []}, "common": {"car": ["car"]}}},
            "'objects.rare.piano' has no phrases",
        ),
        (
            {"objects": {"rare": {"piano": ["p", " "]}, "common": {"car": ["car"]}}},
            "'objects.rare.piano.1' is empty",
        ),
        ({"objects": {"rare": {}, "common": {"car": ["car"]}}}, "'objects.rare' has no classes"),
        (
            {"objects": {"rare": {"piano": ["p"]}, "common": {"car": ["car"], "tent": ["car"]}}},
            "'objects.common' has the phrase 'car' twice",
        ),
        (
            {"objects": {"rare": {"piano": ["p"]}, "common": {"car": 3}}},
            "'objects.common.car' is 3, but must be a list",
        ),
    ],
)
def test_rules_of_prompts(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(prompts(**change), DatasetPromptsConfig)


def test_rules_of_prompts_give_the_whole_path_in_a_larger_config() -> None:
    values = dataset(prompts=prompts(attributes={"place": {"here": -1}}))
    with pytest.raises(UserError, match="^setting 'prompts.attributes.place.here' has weight"):
        validate(values, DatasetConfig)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["piano", "car"], "^setting 'classes' lacks 'tent', which prompts.objects asks for; add it$"),
        (["piano", "car", "tent", "car"], "^setting 'classes' lists 'car' twice"),
    ],
)
def test_classes_and_prompts_must_agree(classes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(dataset(classes=classes), DatasetConfig)


def test_classes_choose_the_order_of_ids() -> None:
    config = validate(dataset(classes=["tent", "piano", "car"]), DatasetConfig)
    assert config.class_names == ("tent", "piano", "car")


def test_classes_that_no_prompt_draws_keep_their_ids() -> None:
    config = validate(dataset(classes=["dog", "tent", "piano", "car"]), DatasetConfig)
    assert config.class_names == ("dog", "tent", "piano", "car")
