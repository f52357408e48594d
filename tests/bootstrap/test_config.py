"""The loop's config: rules between settings, each broken one named in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from bootstrap.config import LoopConfig
from diffugen.config.loader import validate
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.errors import UserError

VALID: dict[str, Any] = {
    "name": "piano",
    "classes": ["piano", "car"],
    "rare_classes": ["piano"],
    "model": {"path": "some/model"},
    "prompts": {
        "templates": [{"text": "a photo of a {rare}"}, {"text": "a photo of a {common}"}],
        "objects": {"rare": {"piano": ["piano"]}, "common": {"car": ["red car"]}},
    },
    "detector": {"base_weights": "base.safetensors"},
}


def changed(valid: dict[str, Any] = VALID, **changes: Any) -> dict[str, Any]:
    """The valid config with `group__key` settings replaced."""
    values = copy.deepcopy(valid)
    for name, value in changes.items():
        *groups, last = name.split("__")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
        target[last] = value
    return values


def redrawn(**changes: Any) -> dict[str, Any]:
    return {"kind": "img2img", "templates": ["{source}, sunny"], "num_images": 2} | changes


def repainted(**changes: Any) -> dict[str, Any]:
    return {"kind": "inpaint", "templates": ["a {common} {source_time}"], "num_images": 2} | changes


def test_variations_need_nothing_but_a_kind_templates_and_a_number() -> None:
    first, second = validate(changed(rounds__variations=[redrawn(), repainted()]), LoopConfig).rounds.variations
    assert (first.task.strength, second.task.strength, second.num_images) == (0.6, 1.0, 2)


def test_variations_share_the_slots_of_the_prompts() -> None:
    """A slot may be there for them alone."""
    values = changed(prompts__attributes={"weather": ["in fog"]})
    with pytest.raises(UserError, match="'prompts.attributes.weather' is in no template"):
        validate(values, LoopConfig)
    values["rounds"] = {"variations": [redrawn(templates={"{source} {weather}": 1})]}
    config = validate(values, LoopConfig)
    (entry,) = config.rounds.variations
    prompts = entry.prompts(config.prompts)
    assert (prompts.texts, prompts.attributes) == (["{source} {weather}"], {"weather": ("in fog",)})
    values["rounds"] = {"variations": [redrawn(templates=["{source} {weather}"], attributes={"weather": ["in rain"]})]}
    config = validate(values, LoopConfig)
    assert config.rounds.variations[0].prompts(config.prompts).attributes == {"weather": ("in rain",)}


def test_a_name_classes_a_model_and_weights_are_a_loop() -> None:
    values = {"name": "p", "classes": ["grand-piano", "car"], "model": {"path": "m"}}
    config = validate(values | {"detector": {"base_weights": "base.pt"}}, LoopConfig)
    assert config.rare_classes == ("grand-piano",)
    assert config.prompts.objects == {"rare": {"grand-piano": ("grand piano",)}, "common": {"car": ("car",)}}
    assert len(config.prompts.templates) == 3


def test_what_is_left_to_the_model_is_filled_in() -> None:
    generate = GenerateConfig(height=64, width=96, attention=AttentionConfig(blocks=("up",)))
    config = validate(VALID, LoopConfig).resolved(generate)
    assert (config.generate, config.detector.imgsz) == (generate, 96)
    own = validate(changed(detector__imgsz=32), LoopConfig).resolved(generate)
    assert own.detector.imgsz == 32


def test_defaults_are_a_whole_loop(tmp_path: Path) -> None:
    config = validate(VALID, LoopConfig, folder=tmp_path)
    assert config.rounds.num_rounds == 3
    assert config.rounds.variations == ()
    assert config.wandb.mode == "disabled"
    assert config.evaluation is None
    assert config.detector.base_weights == (tmp_path / "base.safetensors").resolve()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rare_classes": ["harp"]}, "'rare_classes.0' is 'harp', which is not in classes"),
        ({"rare_classes": ["piano", "piano"]}, "'rare_classes.1' is 'piano' a second time"),
        ({"rare_classes": []}, "rare_classes"),
        ({"classes": ["piano"]}, "'classes' lacks 'car'"),
        (
            {"classes": ["piano", "car", "tent"]},
            "'classes.2' is 'tent', for which prompts.objects has no phrases",
        ),
        ({"num_rounds": 2}, "unknown setting 'num_rounds'; did you mean 'rounds.num_rounds'"),
        ({"rounds__num_round": 2}, "unknown setting 'rounds.num_round'; did you mean 'num_rounds'"),
        ({"rounds__num_rounds": 0}, "'rounds.num_rounds'"),
        ({"rounds__val_fraction": 1.0}, "'rounds.val_fraction'"),
        ({"rounds__filter__min_iou": 1.5}, "'rounds.filter.min_iou'"),
        ({"rounds__start_from": "base"}, "setting 'rounds.start_from' was removed: each round"),
        ({"wandb__mode": "on"}, "'wandb.mode'"),
        ({"labelled": {"dataset": "x"}}, "'labelled': it is now the dataset's folder itself"),
        (
            {"rounds__variations": [redrawn(kind="draw")]},
            "'rounds.variations.0.kind' is \"draw\", but must be 'img2img' or 'inpaint'",
        ),
        (
            {"rounds__variations": [redrawn(task={"kind": "inpaint"})]},
            "setting 'rounds.variations.0.task' was removed: its 'kind'",
        ),
        (
            {"rounds__variations": [redrawn(), redrawn(strength=0.01)]},
            "'rounds.variations.1.strength' is 0.01, not one of 30 denoising steps",
        ),
        (
            {"rounds__variations": [redrawn(templates=["a {object}"])]},
            "'rounds.variations.0.templates.0' has the slot {object}, which is for inpainting",
        ),
        (
            {"rounds__variations": [redrawn(templates=["{source} {zzz}"])]},
            "'rounds.variations.0.templates.0' has the slot {zzz}, which is in neither",
        ),
        ({"rounds__variations": [redrawn(num_images=0)]}, "'rounds.variations.0.num_images'"),
        (
            {"rounds__variations": [repainted(only=["harp"])]},
            "'rounds.variations.0.only' names 'harp', which is not in classes",
        ),
        (
            {"rounds__filter__mask2former": {"model": "m", "class_map": {"lorry": "truck"}}},
            "'rounds.filter.mask2former.class_map.lorry' has the class 'lorry', which is not in classes",
        ),
        (
            {"rounds__filter__mask2former": {"model": "m", "class_map": {"truck": "car"}}},
            "'rounds.filter.mask2former.class_map' is the wrong way round, it leads from a class to names: "
            "{'car': ['truck']}",
        ),
        (
            {"rounds__filter__mask2former": {"model": "m", "class_map": {"car": "bus", "piano": ["bus"]}}},
            "'rounds.filter.mask2former.class_map' has 'bus' for two classes",
        ),
        ({"rounds__filter__mask2former": {"class_map": {}}}, "'rounds.filter.mask2former.model' is missing"),
        ({"name": "../elsewhere"}, "'name'"),
        ({"seed": -1}, "'seed'"),
    ],
)
def test_a_broken_rule_names_its_setting(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        validate(changed(**changes), LoopConfig)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


POOL = {"folder": "photos", "objects": {"piano": ["bench", "car"], "car": "red car"}}


def test_a_pool_has_a_prompt_per_caption_with_objects_in_the_order_of_its_words() -> None:
    captions = ["a red car behind a bench", "a red car and another car"]
    valid = validate(changed(pool=POOL | {"captions": captions}), LoopConfig)
    assert valid.pool is not None
    assert [[phrase.text for phrase in prompt.objects] for prompt in valid.pool.prompts] == [
        ["red car", "bench"],
        ["red car", "car"],
    ]
    captions[1] = "a car and a red car"
    with pytest.raises(UserError, match=r"'pool.captions.1' names .*same classes in one order"):
        validate(changed(pool=POOL | {"captions": captions}), LoopConfig)


def test_a_phrase_is_found_as_a_word_only() -> None:
    with pytest.raises(UserError, match=r"'pool.captions.0' names no class"):
        validate(changed(pool=POOL | {"captions": ["a photo of a scarf and workbenches"]}), LoopConfig)
