"""Configs: one strict JSON loader for all packages, and the settings of generating and labelling."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from diffugen.config_errors import ConfigError, SettingError, sentence
from diffugen.prompt_rules import check_mode, check_prompts

__all__ = ["ConfigError", "ConfigPath", "SettingError", "Strict", "load_config", "validate"]


class Strict(BaseModel):
    """Base of all configs: immutable, unknown keys refused, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_not_bools(cls, values: Any) -> Any:
        """pydantic would take true for 1."""
        for name, field in cls.model_fields.items():
            given = values.get(name) if isinstance(values, Mapping) else None
            if isinstance(given, bool) and _is_number(field.annotation):
                raise SettingError(name, f"is {json.dumps(values[name])} but should be a number")
        return values


def _is_number(annotation: Any) -> bool:
    """Whether a setting is a number, one of some numbers, or null."""
    options = get_args(annotation) or (annotation,)
    return any(option in (int, float) or type(option) is int or _is_number_choice(option) for option in options)


def _is_number_choice(option: Any) -> bool:
    return any(type(choice) is int for choice in get_args(option))


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Relative paths in a config file mean: beside that file."""
    base = (info.context or {}).get("folder")
    if base is None or not isinstance(value, str | Path):
        return value
    return _beside(base, value)


def _beside(folder: Path, path: str | Path) -> Path:
    """The absolute path of one that is given relative to a folder, or to somebody's home."""
    try:
        return (Path(folder) / Path(path).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:  # an unknown user's home, a null byte, a loop of links
        raise ValueError(f"{str(path)!r} is no path ({str(error).rstrip('.')}); give another") from None


ConfigPath = Annotated[Path, BeforeValidator(_resolve)]
"""A path; relative ones are taken from the folder of the config file."""


def _if_local(value: Any, info: ValidationInfo) -> Any:
    """A path that exists beside the config, or starts with a dot or slash, is local; else a hub id."""
    folder = (info.context or {}).get("folder")
    if not isinstance(value, str) or folder is None:
        return value
    # os.path.exists: a text that cannot be a path (too long, a null byte) does not exist
    local = os.path.exists(os.path.join(folder, value))
    local = local or value.startswith((".", "/", "~")) or value.endswith(".safetensors")
    return str(_beside(folder, value)) if local else value


HubPath = Annotated[str, BeforeValidator(_if_local)]
"""A hub id, or a path as `ConfigPath` has it."""

AnyConfig = TypeVar("AnyConfig", bound=Strict)


def load_config(path: Path, schema: type[AnyConfig], overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a JSON config strictly.

    Args:
        path: the JSON file; relative `ConfigPath`s inside it are taken from its folder.
        schema: the config model.
        overrides: `dotted.key=value` strings (list items by their index); values are JSON where they parse as
            JSON, else text; paths among them are relative to the config's folder too.

    Raises:
        ConfigError: one sentence for the first thing that is wrong: its key path, the value, and for an
            unknown key the nearest known name.
    """
    values = read_config(path)
    for override in overrides:
        apply_override(values, override)
    return validate(values, schema, folder=Path(path).parent)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of a config file, not validated yet.

    Raises:
        ConfigError: there is none.
    """
    values = _read(Path(path))
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} must be a JSON object, not a {type(values).__name__}")
    return values


def validate(values: dict[str, Any], schema: type[AnyConfig], folder: Path | None = None) -> AnyConfig:
    """Validate a dict of settings as `load_config` does for a file in `folder`."""
    try:
        return schema.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(sentence(error, schema, values)) from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist; give the path of a JSON config") from None
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}; give the path of a JSON config") from None
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits, too deep
        raise ConfigError(f"config {path} is not valid JSON: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets the last of two equal keys win in silence."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"setting {repeated!r} stands twice in one group of the config; keep one of them")
    return values


def apply_override(values: Any, override: str) -> None:
    """Change a setting by `dotted.key=value`, see `load_config`."""
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"--set {override!r} must have the form dotted.key=value")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *parents, last = key.split(".")
    for name in parents:
        values = values.setdefault(name, {}) if isinstance(values, dict) else values[_index(values, name, override)]
    values[last if isinstance(values, dict) else _index(values, last, override)] = value


def _index(values: Any, name: str, override: str) -> int:
    if not isinstance(values, list):
        raise ConfigError(f"--set {override!r}: what stands before {name!r} is not a group of settings")
    if not name.isdecimal() or int(name) >= len(values):
        raise ConfigError(f"--set {override!r}: {name!r} must be an index below {len(values)}")
    return int(name)


class ModelConfig(Strict):
    """The diffusion model: anything diffusers' Stable Diffusion pipelines load."""

    path: HubPath = Field(description="hub id, pipeline folder or single .safetensors file")
    config: HubPath | None = Field(
        default=None,
        description="pipeline folder or hub id with the configs and tokenizer for a single file, which has weights "
        "alone (default: those of the Stable Diffusion that it looks like, from the hub)",
    )
    revision: str | None = Field(default=None, description="hub revision")
    variant: str | None = Field(default=None, description="weight variant, such as 'fp16'")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(default="float32", description="compute dtype")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")
    scheduler: Literal["default", "dpm++", "ddim", "euler"] = Field(default="default", description="sampler")
    embeddings: tuple[ConfigPath, ...] = Field(default=(), description="textual-inversion files to load")
    lora: ConfigPath | None = Field(default=None, description="LoRA weights (.safetensors) to load")
    cpu_offload: bool = Field(default=False, description="keep only the running part on the GPU")
    vae_slicing: bool = Field(default=False, description="decode one image at a time")
    vae_tiling: bool = Field(default=False, description="decode large images tile by tile")


class TemplateConfig(Strict):
    """One prompt template: text with `{slot}`s, chosen in proportion to its weight."""

    text: str = Field(min_length=1, description="such as 'a photo of a {rare} {place}'")
    weight: float = Field(default=1.0, gt=0, description="how often, relative to the other templates")
    negative: str | None = Field(default=None, description="its own negative prompt (default: prompts.negative)")


def _list_or_weights(values: Any) -> str:
    return "weights" if isinstance(values, Mapping) else "list"


AttributeValues = Annotated[
    Annotated[tuple[str, ...], Tag("list")] | Annotated[dict[str, float], Tag("weights")],
    Discriminator(_list_or_weights),
]
"""Values that are equally likely, or a map from value to weight."""


class PromptsConfig(Strict):
    """Prompt templates, and what their slots are filled with.

    An object slot maps classes to the phrases that may stand for them: its words are attended and labelled.
    Where it stands several times in one template, each stands for another class (with one class: for another
    phrase).
    An attribute slot is a list of values, or a map from value to weight: its words are not labelled. Where it
    stands several times, it has one value. A value may be empty.
    Three slots need no entry, but a task with a source image: `{source}` is its whole prompt, `{source_time}` its
    attribute `time` (empty where it has none), `{object}` the words of the object that is repainted.
    """

    templates: tuple[TemplateConfig, ...] = Field(min_length=1, description="prompt templates")
    objects: dict[str, dict[str, tuple[str, ...]]] = Field(default={}, description="slot -> class -> phrases")
    attributes: dict[str, AttributeValues] = Field(default={}, description="slot -> values or weights")
    negative: str = Field(default="", description="negative prompt")
    mode: Literal["sampled", "cartesian"] = Field(
        default="sampled", description="draw by weight and without repeats, or take every combination"
    )

    @model_validator(mode="after")
    def _rules(self) -> PromptsConfig:
        check_prompts([template.text for template in self.templates], self.objects, self.attributes)
        check_mode(self.mode, [template.weight for template in self.templates], self.attributes)
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class that the prompts may ask for, in the order of the config."""
        return tuple(dict.fromkeys(name for classes in self.objects.values() for name in classes))


class AttentionConfig(Strict):
    """What of a model's attention counts, and what is kept of it."""

    attention_factors: tuple[Literal[1, 2, 4, 8], ...] = Field(
        default=(1, 2, 4),
        min_length=1,
        description="resolutions of attention that count: the latents' side over the map's (default: DAAM's)",
    )
    attention_blocks: tuple[Literal["down", "up"], ...] = Field(
        default=("down", "up"),
        min_length=1,
        description="blocks of the UNet whose attention counts (default: DAAM's); the up blocks often see clearer",
    )
    attend: Literal["tokens", "class_prompt"] = Field(
        default="tokens",
        description="what is attended: the phrases' tokens in the prompt, or a text of the phrases alone, which then "
        "need not be in the prompt",
    )
    self_attention_factor: Literal[1, 2, 4, 8] | None = Field(
        default=None, description="also keep self-attention of this one resolution (latents' side over the map's)"
    )
    presence: bool = Field(
        default=False,
        description="also measure whether each object is in the image at all: 7 more UNet passes, and 7 per phrase",
    )


class GenerateConfig(AttentionConfig):
    """How images are generated."""

    height: int = Field(default=512, ge=64, multiple_of=8, description="pixels")
    width: int = Field(default=512, ge=64, multiple_of=8, description="pixels")
    num_inference_steps: int = Field(default=30, ge=1, le=1000, description="denoising steps")
    guidance_scale: float = Field(default=7.5, ge=0, description="classifier-free guidance; off at 1 or less")
    batch_size: int = Field(default=4, ge=1, description="images at a time; halved when memory runs out")
    attention_max_timestep: int | None = Field(
        default=None,
        ge=0,
        description="attention counts in steps of at most this timestep (of the model's, mostly 1000), as in noise "
        "it strays; null: in all, as DAAM has it",
    )

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


class AttentionLabelConfig(Strict):
    """How heatmaps become instances. Sizes are fractions of the image: any resolution is labelled alike."""

    method: Literal["refined", "paper"] = Field(
        default="refined",
        description="'refined': self-attention, competing phrases, GrabCut; 'paper': Otsu, erosion, dilation, contours",
    )
    min_area_fraction: float = Field(default=0.005, ge=0, lt=1, description="smaller components are noise")
    cut_enlargement: int = Field(
        default=1,
        ge=1,
        le=8,
        description="GrabCut enlarges its pixels by this: parts a pixel or two wide survive, in more time",
    )
    score_threshold: float = Field(default=0.0, ge=0, le=1, description="lower instances are dropped")
    min_presence: float = Field(
        default=0.03,
        description="phrases whose words help denoising less than this share are absent: no label; where measured",
    )
    erode_fraction: float = Field(
        default=10 / 512, ge=0, le=0.1, description="erosion radius / sqrt(H * W), of method 'paper' only"
    )
    dilate_fraction: float = Field(
        default=7 / 512, ge=0, le=0.1, description="dilation radius / sqrt(H * W), of method 'paper' only"
    )


def _gpu_number(value: Any) -> Any:
    return str(value) if type(value) is int else value  # `--set detector.device=0` says a number


DeviceList = Annotated[str, BeforeValidator(_gpu_number, json_schema_input_type=str | int)]


class DetectorConfig(Strict):
    """How the detector is fine-tuned (ultralytics)."""

    imgsz: int = Field(default=640, ge=32, multiple_of=32, description="training and prediction size, pixels")
    epochs: int = Field(default=40, ge=1, description="passes over the dataset")
    batch_size: int = Field(default=16, ge=1, description="images per step")
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="initial rate (AdamW)")
    freeze: int = Field(default=0, ge=0, description="number of leading layers kept fixed")
    mosaic: float = Field(default=0.0, ge=0, le=1, description="probability of mosaic augmentation")
    augment: bool = Field(default=True, description="albumentations' blur, noise and colour changes")
    device: DeviceList = Field(
        default="auto", description="'auto', 'cpu', or GPUs such as '0,1', which share the batch"
    )
