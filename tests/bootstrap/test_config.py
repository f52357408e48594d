"""The loop's config: rules between settings, each broken one named in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from bootstrap.config import LoopConfig, check_files
from diffugen.config.loader import validate
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
    return changed(
        {"task": {"kind": "img2img"}, "prompts": {"templates": [{"text": "{source}, sunny"}]}, "num_images": 2},
        **changes,
    )


def repainted(**changes: Any) -> dict[str, Any]:
    prompts = {"templates": [{"text": "a {new} {source_time}"}], "objects": {"new": {"car": ["bus"]}}}
    return changed({"task": {"kind": "inpaint"}, "prompts": prompts, "num_images": 2}, **changes)


def test_variations_need_nothing_but_a_task_prompts_and_a_number() -> None:
    first, second = validate(changed(rounds__variations=[redrawn(), repainted()]), LoopConfig).rounds.variations
    assert (first.task.strength, second.task.strength, second.num_images) == (0.6, 1.0, 2)


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
        ({"rounds__num_round": 2}, "unknown setting 'rounds.num_round'; did you mean 'num_rounds'"),
        ({"rounds__num_rounds": 0}, "'rounds.num_rounds'"),
        ({"rounds__val_fraction": 1.0}, "'rounds.val_fraction'"),
        ({"rounds__filter__min_iou": 1.5}, "'rounds.filter.min_iou'"),
        ({"rounds__start_from": "best"}, "'rounds.start_from'"),
        ({"wandb__mode": "on"}, "'wandb.mode'"),
        (
            {"rounds__variations": [{"task": {"kind": "draw"}}]},
            "'rounds.variations.0.task.kind' is \"draw\" but should be",
        ),
        ({"rounds__variations": [{"task": {}}]}, "'rounds.variations.0.task.kind' is missing"),
        (
            {"rounds__variations": [redrawn(task__source="elsewhere")]},
            "unknown setting 'rounds.variations.0.task.source'",
        ),
        (
            {"rounds__variations": [redrawn(), redrawn(task__strength=0.01)]},
            "'rounds.variations.1.task.strength' is 0.01, not one of 30 denoising steps",
        ),
        (
            {"rounds__variations": [redrawn(prompts__templates=[{"text": "a {object}"}])]},
            "'rounds.variations.0.prompts.templates.0.text' has the slot {object}, which is for inpainting",
        ),
        ({"rounds__variations": [redrawn(prompts__mode="cartesian")]}, "'rounds.variations.0.prompts.mode' is"),
        ({"rounds__variations": [redrawn(num_images=0)]}, "'rounds.variations.0.num_images'"),
        (
            {"rounds__variations": [repainted(task__only=["harp"])]},
            "'rounds.variations.0.task.only' names 'harp', which is not in classes",
        ),
        (
            {"rounds__variations": [repainted(prompts__objects={"new": {"bus": ["bus"]}})]},
            "'rounds.variations.0.prompts.objects.new' names 'bus', which is not in classes",
        ),
        (
            {"rounds__filter__mask2former": {"model": "m", "class_map": {"truck": "lorry"}}},
            "'rounds.filter.mask2former.class_map.truck' is 'lorry', which is not in classes",
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


def write_dataset_yaml(folder: Path, split: str = "test", names: str = "{0: piano, 1: car}") -> None:
    folder.mkdir()
    (folder / "data.yaml").write_text(f"train: images/{split}\n{split}: images/{split}\nnames: {names}\n")


def test_missing_files_are_found_before_any_work(tmp_path: Path) -> None:
    config = validate(changed(evaluation__dataset="truth"), LoopConfig, folder=tmp_path)
    with pytest.raises(UserError, match=r"'detector.base_weights': .*base.safetensors does not exist"):
        check_files(config)
    (tmp_path / "base.safetensors").touch()
    with pytest.raises(UserError, match=r"'evaluation.dataset': .*truth has no data.yaml"):
        check_files(config)
    write_dataset_yaml(tmp_path / "truth")
    check_files(config)


def test_the_evaluation_set_must_fit_the_run(tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").touch()
    write_dataset_yaml(tmp_path / "other_split", split="val")
    config = validate(changed(evaluation__dataset="other_split"), LoopConfig, folder=tmp_path)
    with pytest.raises(UserError, match=r"'evaluation.split' is 'test', but .* has the splits train, val"):
        check_files(config)
    write_dataset_yaml(tmp_path / "other_names", names="{0: piano}")
    config = validate(changed(evaluation__dataset="other_names"), LoopConfig, folder=tmp_path)
    with pytest.raises(UserError, match="has no class 'car'"):
        check_files(config)


POOL = {"folder": "photos", "objects": {"bench": "piano", "car": "piano", "red car": "car"}}


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
