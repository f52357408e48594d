"""Settings of the model, prompts, generation, attention labels and the detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from diffugen.config.errors import SettingError, require
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.prompt_rules import SLOT, prompt_mistakes, unused_slots, weight_mistakes


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]
"""A list of names; one may stand without the brackets."""

ClassMap = dict[str, Names]
"""The shape of every class map: a class of the run -> the names that stand for it elsewhere."""


class ModelConfig(Strict):
    """The diffusion model: anything diffusers' Stable Diffusion pipelines load."""

    renamed: ClassVar[Mapping[str, str]] = {
        "cpu_offload": "is now 'model.low_memory'",
        "vae_slicing": "is now 'model.low_memory'",
        "vae_tiling": "is now 'model.low_memory'",
        "variant": 'was removed: with dtype "float16" the fp16 files are taken where there are any',
    }

    path: HubPath = Field(description="hub id, pipeline folder or single .safetensors file")
    config: HubPath | None = Field(
        default=None,
        description="pipeline folder or hub id with the configs and tokenizer for a single file, which holds weights "
        "only (null: those of the Stable Diffusion that it looks like, from the hub)",
    )
    revision: str | None = Field(default=None, description="hub revision")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(default="float32", description="compute dtype")
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")
    scheduler: Literal["default", "dpm++", "ddim", "euler"] = Field(default="default", description="sampler")
    embeddings: tuple[ConfigPath, ...] = Field(default=(), description="textual-inversion files to load")
    lora: ConfigPath | None = Field(default=None, description="LoRA weights (.safetensors) to load")
    low_memory: bool = Field(
        default=False,
        description="slower, in less GPU memory: only the running part is on the GPU, images are decoded one at a "
        "time, and large ones tile by tile",
    )


class TemplateConfig(Strict):
    """One prompt template: text with `{slot}`s, chosen in proportion to its weight."""

    renamed: ClassVar[Mapping[str, str]] = {
        "negative": "was removed: 'prompts.negative' is the negative prompt of all templates"
    }

    text: str = Field(min_length=1, description="such as 'a photo of a {rare} {place}'")
    weight: float = Field(default=1.0, gt=0, description="how often, relative to the other templates")


def _list_or_weights(values: Any) -> str:
    return "weights" if isinstance(values, Mapping) else "list"


Weighted = Annotated[
    Annotated[tuple[str, ...], Tag("list")] | Annotated[dict[str, float], Tag("weights")],
    Discriminator(_list_or_weights),
]
"""Values that are equally likely, or a map from value to weight."""


def _templates(values: Any) -> Any:
    """Templates as `TemplateConfig` has them; a run's config.json holds them like that."""
    if isinstance(values, Mapping):
        return [{"text": text, "weight": weight} for text, weight in values.items()]
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [{"text": value} if isinstance(value, str) else value for value in values]
    return values


Templates = Annotated[
    tuple[TemplateConfig, ...], Field(min_length=1), BeforeValidator(_templates, json_schema_input_type=Weighted)
]

DEFAULT_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "place": ("in a city", "in a desert", "in a forest", "on a beach", "in a village", "in a snowfield"),
    "time": ("by day", "at sunset", "at night"),
}
"""Values of slots that a template may use without saying what fills them."""


def default_templates(data: dict[str, Any]) -> Templates:
    """A rare object alone, one beside something common, and something common alone: a detector learns it by these."""
    objects = data.get("objects", {})
    texts = {
        "a photo of a {rare} {place} {time}": 5.0,
        "a photo of a {rare} and a {common} {place}": 3.0,
        "a photo of a {common} {place} {time}" if "common" in objects else "a photo {place} {time}": 2.0,
    }
    given = {*objects, *DEFAULT_ATTRIBUTES}
    return tuple(
        TemplateConfig(text=text, weight=weight)
        for text, weight in texts.items()
        if given.issuperset(SLOT.findall(text))
    )


def default_attributes(data: dict[str, Any]) -> dict[str, Any]:
    """Values for the slots that templates use and nobody else fills."""
    used = {slot for template in data.get("templates", ()) for slot in SLOT.findall(template.text)}
    return {slot: DEFAULT_ATTRIBUTES[slot] for slot in DEFAULT_ATTRIBUTES if slot in used - {*data.get("objects", {})}}


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

    objects: dict[str, ClassMap] = Field(default={}, description="slot -> class -> phrases")
    templates: Templates = Field(
        default_factory=default_templates,
        description="prompt templates: a list, or a map from template to weight (default: photos of a {rare} object, "
        "alone and beside a {common} one, and of a {common} one alone)",
    )
    attributes: dict[str, Weighted] = Field(
        default_factory=default_attributes,
        description="slot -> values, or a map from value to weight (default: six places for {place}, three times of "
        "day for {time})",
    )
    negative: str = Field(default="", description="negative prompt")

    @field_validator("attributes")
    @classmethod
    def _with_defaults(cls, given: dict[str, Any], known: ValidationInfo) -> dict[str, Any]:
        return {**default_attributes(known.data), **given}

    @model_validator(mode="after")
    def _slots_fit(self) -> PromptsConfig:
        require(prompt_mistakes(self.texts, self.objects, self.attributes))
        return self

    @property
    def texts(self) -> list[str]:
        """The templates' texts."""
        return [template.text for template in self.templates]

    @property
    def every_combination(self) -> bool:
        """Whether prompts are all combinations, not drawn ones."""
        return False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class that the prompts may ask for, in the order of the config."""
        return tuple(dict.fromkeys(name for classes in self.objects.values() for name in classes))


class DatasetPromptsConfig(PromptsConfig):
    """Prompts of `diffugen generate`, which can take every combination."""

    mode: Literal["sampled", "cartesian"] = Field(
        default="sampled", description="draw by weight and without repeats, or take every combination"
    )

    @model_validator(mode="after")
    def _nothing_idle(self) -> DatasetPromptsConfig:
        require(self._idle())
        return self

    def _idle(self) -> Iterator[SettingError]:
        yield from unused_slots(self.texts, self.objects, self.attributes)
        if self.every_combination:
            yield from weight_mistakes([template.weight for template in self.templates], self.attributes)

    @property
    def every_combination(self) -> bool:
        return self.mode == "cartesian"


class AttentionConfig(Strict):
    """What of a model's attention counts, and what is kept of it. Null means: as the model's folder says.

    See `diffugen.diffusion.native` for what a folder can say; where it says nothing, it is DAAM's choice.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "attention_factors": "is now 'factors'",
        "attention_blocks": "is now 'blocks'",
    }

    blocks: tuple[Literal["down", "up"], ...] | None = Field(
        default=None,
        min_length=1,
        description="blocks of the UNet whose attention counts; the up blocks often see clearer (null: the model's, "
        "else both)",
    )
    factors: tuple[Literal[1, 2, 4, 8], ...] | None = Field(
        default=None,
        min_length=1,
        description="resolutions of attention that count: the latents' side over the map's (null: the model's, else "
        "1, 2, 4)",
    )
    self_attention_factor: Literal[0, 1, 2, 4, 8] | None = Field(
        default=None,
        description="also keep self-attention of this one resolution, 0: of none (null: the model's, else 0)",
    )
    attend: Literal["tokens", "class_prompt"] = Field(
        default="tokens",
        description="what is attended: the phrases' tokens in the prompt, or a text of the phrases alone, which then "
        "need not be in the prompt",
    )
    decoder: ConfigPath | None = Field(
        default=None,
        description="decoder learned from a few drawn masks, .safetensors: it says where its classes are (null: none)",
    )
    presence: bool = Field(
        default=False,
        description="also measure whether each object is in the image at all: 7 more UNet passes, and 7 per phrase",
    )
    max_timestep: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="attention counts in denoising steps of at most this timestep, as in noise it strays (null: in all "
        "steps, as DAAM does)",
    )


class GenerateConfig(Strict):
    """How images are generated. A null size is the model's own."""

    renamed: ClassVar[Mapping[str, str]] = {
        "attention_factors": "is now 'generate.attention.factors'",
        "attention_blocks": "is now 'generate.attention.blocks'",
        "attend": "is now 'generate.attention.attend'",
        "self_attention_factor": "is now 'generate.attention.self_attention_factor'",
        "presence": "is now 'generate.attention.presence'",
        "attention_max_timestep": "is now 'generate.attention.max_timestep'",
    }

    height: int | None = Field(
        default=None, ge=64, le=8192, multiple_of=8, description="pixels (null: what the model was made for)"
    )
    width: int | None = Field(
        default=None, ge=64, le=8192, multiple_of=8, description="pixels (null: what the model was made for)"
    )
    num_inference_steps: int = Field(default=30, ge=1, le=1000, description="denoising steps")
    guidance_scale: float = Field(default=7.5, ge=0, le=100, description="classifier-free guidance; off at 1 or less")
    batch_size: int = Field(default=4, ge=1, le=1024, description="images at a time; halved when memory runs out")
    attention: AttentionConfig = Field(default=AttentionConfig(), description="what of the model's attention counts")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels.

        Raises:
            ValueError: they are still to be taken from the model, see `diffugen.diffusion.native`.
        """
        if self.height is None or self.width is None:
            raise ValueError("generate.height and width are not resolved; call with_model_defaults(settings, pipe)")
        return self.height, self.width


class OutlineConfig(Strict):
    """What moves the edges of labels' masks to those of the objects."""

    method: Literal["grabcut", "learned", "sam", "none"] = Field(
        default="grabcut",
        description="'grabcut': by colour; 'learned': a network of `python -m diffugen.labelers.train_outliner`; "
        "'sam': SAM, SAM-HQ, SAM 2 or SAM 3; 'none': masks stay as they are",
    )
    model: HubPath | None = Field(
        default=None, description="weights of 'learned' (.safetensors); folder or hub id of 'sam'"
    )

    @model_validator(mode="after")
    def _rules(self) -> OutlineConfig:
        networks = {"learned": "a .safetensors file", "sam": "a folder or hub id"}
        if self.model is None and self.method in networks:
            raise SettingError("model", f"is missing; method {self.method!r} needs {networks[self.method]}")
        if self.model is not None and self.method not in networks:
            raise SettingError("model", f"is given, but method {self.method!r} takes none; remove it")
        return self


class AttentionLabelConfig(Strict):
    """How heatmaps become instances. Sizes are fractions of the image: any resolution is labelled alike."""

    renamed: ClassVar[Mapping[str, str]] = {
        "min_presence": "was removed: an object is absent if its words help denoising by less than 0.03",
        "score_threshold": "was removed: 'rounds.filter.min_score' does the same",
        "cut_enlargement": "was removed: GrabCut always enlarges its pixels twofold",
    }

    method: Literal["refined", "paper"] = Field(
        default="refined",
        description="'refined': self-attention, competing phrases, GrabCut; 'paper': Otsu, erosion, dilation, contours",
    )
    min_area_fraction: float = Field(default=0.005, ge=0, lt=1, description="smaller components are noise")
    outline: OutlineConfig = Field(default=OutlineConfig(), description="how masks get their outlines")
    erode_fraction: float = Field(
        default=10 / 512, ge=0, le=0.1, description="erosion radius / sqrt(H * W), of method 'paper' only"
    )
    dilate_fraction: float = Field(
        default=7 / 512, ge=0, le=0.1, description="dilation radius / sqrt(H * W), of method 'paper' only"
    )


def _gpu_number(value: Any) -> Any:
    return str(value) if type(value) is int else value  # `--set detector.device=0` says a number


DeviceList = Annotated[
    str, BeforeValidator(_gpu_number, json_schema_input_type=str | Annotated[int, Field(ge=0, le=1023)])
]


DEFAULT_IMGSZ = 640
"""Size that ultralytics' own segmenters are trained at, pixels."""


class DetectorConfig(Strict):
    """How the detector is fine-tuned (ultralytics)."""

    renamed: ClassVar[Mapping[str, str]] = {
        "freeze": "was removed: all layers are trained; frozen ones gained nothing",
        "mosaic": "was removed: mosaic augmentation is off; it gained nothing",
        "augment": "was removed: blur, noise, compression and light are always varied",
    }

    imgsz: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        multiple_of=32,
        description="training and prediction size, pixels (null: the longer side of the generated images; 640 where "
        "there are photos alone)",
    )
    epochs: int = Field(
        default=40,
        ge=1,
        le=10_000,
        description="passes over the dataset; fewer than about 64 images are repeated within a pass",
    )
    batch_size: int = Field(default=16, ge=1, le=4096, description="images per step")
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="initial rate (AdamW)")
    device: DeviceList = Field(
        default="auto", description="'auto', 'cpu', or GPUs such as '0,1', which share the batch"
    )

    @property
    def first_device(self) -> str:
        """Where to predict: a list of GPUs is for training only."""
        return self.device.split(",")[0]
