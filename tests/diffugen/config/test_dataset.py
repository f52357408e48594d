"""The config of `diffugen generate`: tasks and counts that go together."""

from __future__ import annotations

from typing import Any

import pytest

from diffugen.config.dataset import DatasetConfig, Img2ImgConfig, InpaintConfig
from diffugen.config.loader import validate
from diffugen.errors import UserError

OBJECTS = {"common": {"car": ["car"], "tent": ["tent"]}}


def dataset(*texts: str, objects: Any = OBJECTS, mode: str = "sampled", **changes: Any) -> dict[str, Any]:
    """Settings with these templates; `common` is dropped where no template has it."""
    used = {slot: classes for slot, classes in objects.items() if any(f"{{{slot}}}" in text for text in texts)}
    prompts = {"templates": [{"text": text} for text in texts], "objects": used, "mode": mode}
    return {"model": {"path": "m"}, "prompts": prompts, **changes}


@pytest.mark.parametrize(
    "values",
    [
        dataset("a {common}", num_images=3),
        dataset("a {common}", num_images_per_class={"car": 1, "tent": 2}),
        dataset("a {common}", mode="cartesian"),
        dataset("a {common}", mode="cartesian", num_images=3),
        dataset("a {common}", mode="cartesian", num_images_per_prompt=3),
        dataset("{source} at night", task={"kind": "img2img", "source": "s"}),
        dataset("a {common}", "{source}", task={"kind": "img2img", "source": "s", "strength": 0.2}, num_images=2),
        dataset(
            "a wooden {object}", "a {common}", task={"kind": "inpaint", "source": "s", "replace": {"dog": ["car"]}}
        ),
        dataset("a {common}", num_images=1, seed_range=[5, 5]),
    ],
)
def test_good_configs(values: dict[str, Any]) -> None:
    config = validate(values, DatasetConfig)
    assert validate(config.model_dump(mode="json"), DatasetConfig) == config


def test_the_kind_chooses_the_task() -> None:
    task = {"kind": "inpaint", "source": "s"}
    assert isinstance(validate(dataset("a {object}", task=task), DatasetConfig).task, InpaintConfig)
    task = {"kind": "img2img", "source": "s"}
    assert isinstance(validate(dataset("{source}", task=task), DatasetConfig).task, Img2ImgConfig)


IMG2IMG, INPAINT = {"kind": "img2img", "source": "s"}, {"kind": "inpaint", "source": "s"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dataset("a {common}"), "'num_images' is missing; give it or num_images_per_class"),
        (
            dataset("a {common}", num_images=3, num_images_per_class={"car": 1}),
            "'num_images_per_class' is given together",
        ),
        (dataset("a {common}", num_images_per_prompt=3), "'num_images_per_prompt' needs prompts.mode \"cartesian\""),
        (
            dataset("a {common}", mode="cartesian", num_images_per_class={"car": 1, "tent": 1}),
            '\'num_images_per_class\' is for task "txt2img" with prompts.mode "sampled"',
        ),
        (dataset("a {common}", num_images_per_class={"car": 1}), "'num_images_per_class' lacks 'tent'"),
        (
            dataset("a {common}", num_images_per_class={"car": 1, "tent": 1, "dog": 1}),
            "'num_images_per_class.dog' is no class of prompts.objects, which has car, tent",
        ),
        (
            dataset("a {common}", num_images_per_class={"car": 0, "tent": 1}),
            "'num_images_per_class.car' is 0, but must be greater than 0",
        ),
        (
            dataset("a {common}", "a road", num_images_per_class={"car": 1, "tent": 1}),
            "'prompts.templates.1' has no object slot",
        ),
        (
            dataset("a {common}", num_images=1, seed_range=[6, 5]),
            r"'seed_range' is \[6, 5\]; give the least seed first",
        ),
        (
            dataset("{source} at night", num_images=1),
            r"'prompts.templates.0' has the slot \{source\}, which describes",
        ),
        (dataset("a {object}", task=IMG2IMG), r"'prompts.templates.0' has the slot \{object\}, which is for"),
        (dataset("{source} and a {common}", task=IMG2IMG), r"has \{source\} beside an object slot"),
        (dataset("{source} {source}", task=IMG2IMG), r"has \{source\} beside an object slot or a second"),
        (dataset("{source}", task=INPAINT), "'prompts.templates.0' must ask for the one object that is painted"),
        (dataset("a road", task=INPAINT), "must ask for the one object that is painted: by {object}"),
        (dataset("a {common} and a {common}", task=INPAINT), "must ask for the one object that is painted"),
        (
            dataset("a {common}", task={**INPAINT, "replace": {"car": ["dog"]}}),
            "'task.replace.car' names 'dog', for which",
        ),
        (dataset("a {common}", task={**INPAINT, "replace": {"car": []}}), "'task.replace.car' is empty; name classes"),
        (dataset("{source}", task={**IMG2IMG, "strength": 0.01}), "'task.strength' is 0.01, not one of 30 denoising"),
        (dataset("{source}", task={"kind": "img2img"}), "'task.source' is missing; add it"),
        (dataset("{source}", task={"source": "s"}), "'task.kind' is missing; add it, it says"),
        (
            dataset("{source}", task={"kind": "img2im", "source": "s"}),
            "'task.kind' is \"img2im\", but must be one of 'txt2img', 'img2img', 'inpaint'",
        ),
        (
            dataset("{source}", task={**IMG2IMG, "strenght": 0.5}),
            "unknown setting 'task.strenght'; did you mean 'strength'",
        ),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(values, DatasetConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"templates": [{"text": "a {x}"}, {"text": "the {x}", "weight": 2}]},
            "templates.1' has the weight 2, which has no",
        ),
        (
            {"attributes": {"y": {"b": 1, "c": 2}}, "templates": [{"text": "a {x} {y}"}]},
            "attributes.y' has weights, which",
        ),
    ],
)
def test_nothing_is_weighted_where_every_combination_comes(change: dict[str, Any], message: str) -> None:
    values = {"objects": {"x": {"car": ["car"]}}, "mode": "cartesian", **change}
    with pytest.raises(UserError, match=message):
        validate({"model": {"path": "m"}, "prompts": values}, DatasetConfig)
