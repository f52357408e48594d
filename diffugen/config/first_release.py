"""Configs of the first DiffuGen (Shenoda and Kim, 2023): recognised, and translated into ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, model_validator

from diffugen.config.errors import SettingError, require
from diffugen.config.loader import Strict, validate
from diffugen.config.prompt_rules import SLOT
from diffugen.errors import UserError

logger = logging.getLogger(__name__)

TASKS = ("txt2img", "img2img", "inpaint")

SLOTS = {
    "view_points": "view_point",
    "times_of_day": "time_of_day",
    "sky_conditions": "sky_condition",
    "weather_conditions": "weather_condition",
}
"""Lists of theirs and the slots that they fill; `object_names` fills {object_name}."""

COMMON_KEYS = {
    "dataset_name",
    "dataset_root",
    "image_format",
    "image_size",
    "steps",
    "dataset_classes",
    "dataset_to_model_class_map",
    "label_model",
    "unsupervised",
    "deterministic",
    "images_per_shard",
    *TASKS,
}
SECTION_KEYS = {
    "stable_diffusion_model",
    "seed_range",
    "seed_count_per_prompt",
    "image_count",
    "textual_inversion",
    "object_names",
    "prompts",
    "negative_prompt",
    "source_dataset",
    *SLOTS,
}
LABEL_MODELS = {"yoloseg": "yolo", "mask2former": "mask2former"}
IMG2IMG_STRENGTH = 0.8  # diffusers' default, which theirs leaves as it is


class _Theirs(Strict):
    """Groups of their settings: what is known of them has the right kind, all else is passed over."""

    model_config = ConfigDict(extra="allow")


class _Size(_Theirs):
    width: int | None = None
    height: int | None = None


class _SeedRange(_Theirs):
    min: int
    max: int


class _TextualInversion(_Theirs):
    weights: str | None = None
    keyword: str | None = None


class _LabelModel(_Theirs):
    type: str | None = None
    weights: str | None = None


class _Section(_Theirs):
    stable_diffusion_model: str | None = None
    seed_range: _SeedRange | None = None
    seed_count_per_prompt: int | None = None
    image_count: int | None = None
    textual_inversion: _TextualInversion | None = None
    object_names: list[str] | None = None
    prompts: list[str] | None = None
    negative_prompt: str | None = None
    source_dataset: str | None = None
    view_points: list[str] | None = None
    times_of_day: list[str] | None = None
    sky_conditions: list[str] | None = None
    weather_conditions: list[str] | None = None


class _Inpaint(_Section):
    @model_validator(mode="after")
    def _lists_of_words(self) -> _Inpaint:
        require(
            SettingError(name, "must be a list of words that replace it, or a setting of diffugen's first release")
            for name, words in (self.model_extra or {}).items()
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words)
        )
        return self


class _FirstRelease(_Theirs):
    dataset_name: str | None = None
    dataset_root: str | None = None
    image_format: str | None = None
    image_size: _Size | None = None
    steps: int | None = None
    dataset_classes: list[str] | None = None
    dataset_to_model_class_map: dict[str, str] | None = None
    label_model: _LabelModel | None = None
    unsupervised: bool | None = None
    deterministic: bool | None = None
    txt2img: _Section | None = None
    img2img: _Section | None = None
    inpaint: _Inpaint | None = None


def is_upstream(values: Mapping[str, Any]) -> bool:
    """Whether these are settings in their form."""
    return "dataset_name" in values or any(isinstance(values.get(task), dict) for task in TASKS)


def is_upstream_key(key: str) -> bool:
    """Whether an override's dotted key is one of theirs."""
    return key.split(".")[0] in COMMON_KEYS


def translate(values: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings in our form for some tasks of a config of theirs; whatever has no effect is named in a warning.

    Their paths are relative to the working directory.

    Raises:
        UserError: something that they require is missing or of another kind.
    """
    values = _given(values)
    tasks = [task for task in tasks if task in values]
    if not tasks:
        raise UserError("the config has none of the groups txt2img, img2img and inpaint; add one")
    validate(values, _FirstRelease)
    for warning in _without_effect(values, tasks):
        logger.warning("%s", warning)
    return {task: _task_values(values, task) for task in tasks}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that are null, in their groups too: they are as if they were not there."""
    given = {name: value for name, value in values.items() if value is not None}
    return {name: _given(value) if isinstance(value, dict) else value for name, value in given.items()}


def _task_values(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    section, first = values[task], values.get("txt2img", {})
    size = values.get("image_size", {})
    generate = {key: size[key] for key in ("height", "width") if key in size}
    if "steps" in values:
        generate["num_inference_steps"] = values["steps"]
    prompts = {"txt2img": _txt2img_prompts, "img2img": _img2img_prompts, "inpaint": _inpaint_prompts}[task]
    translated: dict[str, Any] = {
        "model": _model(section, task),
        "prompts": {
            **prompts(section, first),
            "negative": section.get("negative_prompt", first.get("negative_prompt", "")),
            "mode": "cartesian",
        },
        "generate": generate,
        **_counts(section),
    }
    if values.get("unsupervised") is False:
        translated["label_model"] = _label_model(values)
    if task == "txt2img":  # the others have their source's classes; what is drawn is labelled, listed or not
        listed = values.get("dataset_classes", [])
        translated["classes"] = list(dict.fromkeys([*listed, *translated["prompts"]["objects"]["object_name"]]))
    else:
        source = section.get("source_dataset", str(default_out(values, "txt2img")))
        translated["task"] = {"kind": task, "source": source}
    if task == "img2img":
        translated["task"]["strength"] = IMG2IMG_STRENGTH
    if task == "inpaint":
        replaced = list(_replacements(section))
        translated["task"] |= {"only": replaced, "replace": {name: [name] for name in replaced}}
    return translated


def _model(section: Mapping[str, Any], task: str) -> dict[str, Any]:
    model: dict[str, Any] = {}
    if "stable_diffusion_model" in section:
        model["path"] = section["stable_diffusion_model"]
    if inversion := section.get("textual_inversion"):
        if "weights" not in inversion:
            raise UserError(f"setting '{task}.textual_inversion.weights' is missing; give the embedding file")
        model["embeddings"] = [inversion["weights"]]
    return model


def _label_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """The network that labels; their file of its class names is not needed, as checkpoints have them."""
    given = values.get("label_model", {})
    kind = given.get("type", "YOLOSeg").lower()
    if kind not in LABEL_MODELS:
        raise UserError(f"setting 'label_model.type' is {given['type']!r}; give YOLOSeg or Mask2Former")
    if "weights" not in given:
        raise UserError("setting 'label_model.weights' is missing; give the checkpoint")
    classes = values.get("dataset_to_model_class_map", {})
    ours = {key: value for key, value in given.items() if key not in ("type", "weights", "classes")}
    return {"kind": LABEL_MODELS[kind], "weights": given["weights"], "class_map": classes, **ours}


def _txt2img_prompts(section: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("prompts", "object_names"):
        if not section.get(key):
            raise UserError(f"setting 'txt2img.{key}' is missing; add a list")
    objects: dict[str, list[str]] = {}
    for name in dict.fromkeys(section["object_names"]):
        objects.setdefault(_class_of(name), []).append(name)
    return {
        "templates": [{"text": text} for text in section["prompts"]],
        "objects": {"object_name": objects},
        "attributes": _attributes(section, _slots(section["prompts"])),
    }


def _attributes(section: Mapping[str, Any], slots: set[str]) -> dict[str, list[str]]:
    """The lists that fill one of these slots."""
    return {
        slot: list(dict.fromkeys(section[key])) for key, slot in SLOTS.items() if section.get(key) and slot in slots
    }


def _img2img_prompts(section: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """The source's prompt with other values in its slots; slots that it does not have are passed over."""
    known = _slots(first["prompts"]) if first.get("prompts") else set(SLOTS.values())
    attributes = _attributes(section, known)
    text = " ".join(["{source}", *(f"{{{slot}}}" for slot in attributes)])
    return {"templates": [{"text": text}], "objects": {}, "attributes": attributes}


def _inpaint_prompts(section: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Their own wording; the replacements are further words for the class that they replace."""
    replacements = _replacements(section)
    if not replacements:
        raise UserError('setting \'inpaint\' names no object to replace; add lists such as "car": ["red mustang"]')
    return {
        "templates": [{"text": "a {source_view_point} view of {object_name}"}],
        "objects": {"object_name": replacements},
    }


def _replacements(section: Mapping[str, Any]) -> dict[str, list[str]]:
    """class -> what its objects are replaced by: every key of "inpaint" that is not a setting."""
    return {_class_of(key): value for key, value in section.items() if key not in SECTION_KEYS}


def _counts(section: Mapping[str, Any]) -> dict[str, Any]:
    """How many images: `image_count` where it is given, else so many seeds per prompt."""
    counts: dict[str, Any] = {}
    if "image_count" in section:
        counts["num_images"] = section["image_count"]
    elif "seed_count_per_prompt" in section:
        counts["num_images_per_prompt"] = section["seed_count_per_prompt"]
    if "seed_range" in section:
        counts["seed_range"] = [section["seed_range"]["min"], section["seed_range"]["max"]]
    return counts


def _without_effect(values: Mapping[str, Any], tasks: Sequence[str]) -> Iterator[str]:
    """What of their config cannot be honoured, one sentence each."""
    if unknown := [key for key in values if key not in COMMON_KEYS]:
        yield f"settings {', '.join(map(repr, unknown))} are not known and have no effect"
    if values.get("image_format", "png") != "png":
        yield f"setting 'image_format' {values['image_format']!r} has no effect; images are PNG"
    if values.get("deterministic") is False:
        yield "setting 'deterministic' false has no effect; every sample has its own seed, which follows from 'seed'"
    if "images_per_shard" in values:
        yield "setting 'images_per_shard' has no effect; images lie in one folder per split"
    ignored = [key for key in ("label_model", "dataset_to_model_class_map") if key in values]
    if ignored and values.get("unsupervised", True) is not False:
        yield f"settings {' and '.join(map(repr, ignored))} have no effect; labels come from attention ('unsupervised')"
    for task in tasks:
        yield from _section_without_effect(values[task], task, values.get("txt2img", {}).get("prompts") or [])


def _section_without_effect(section: Mapping[str, Any], task: str, texts: Sequence[str]) -> Iterator[str]:
    if task != "inpaint" and (unknown := [key for key in section if key not in SECTION_KEYS]):
        yield f"settings {', '.join(repr(f'{task}.{key}') for key in unknown)} are not known and have no effect"
    for key, slot in SLOTS.items():
        if key in section and (task == "inpaint" or (texts and slot not in _slots(texts))):
            yield f"setting '{task}.{key}' has no effect; no prompt has the slot {{{slot}}}"
    theirs = {"img2img": ("prompts", "object_names"), "inpaint": ("prompts", "object_names")}.get(task, ())
    for key in theirs:
        if key in section:
            yield f"setting '{task}.{key}' has no effect; the prompts of the source are used"
    keyword = section.get("textual_inversion", {}).get("keyword")
    if keyword and not any(keyword in text for text in [*texts, *section.get("object_names", [])]):
        yield f"setting '{task}.textual_inversion.keyword' {keyword!r} has no effect; no prompt has the word"


def _class_of(object_name: str) -> str:
    """The class of an object name; the token of a learned concept without its brackets."""
    return object_name.strip("<>")


def _slots(texts: Sequence[str]) -> set[str]:
    return {slot for text in texts for slot in SLOT.findall(text)}


def default_out(values: Mapping[str, Any], task: str) -> Path:
    """Where a task's dataset goes, relative to the working directory; so does theirs."""
    return Path(str(values.get("dataset_root", "runs"))) / str(values.get("dataset_name", "upstream")) / task
