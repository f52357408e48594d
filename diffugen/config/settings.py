"""Settings of the model, prompts, generation, attention labels and the detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from diffugen.config.errors import SettingError
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.prompt_rules import check_mode, check_prompts


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

    method: Literal["refined", "paper"] = Field(
        default="refined",
        description="'refined': self-attention, competing phrases, GrabCut; 'paper': Otsu, erosion, dilation, contours",
    )
    min_area_fraction: float = Field(default=0.005, ge=0, lt=1, description="smaller components are noise")
    outline: OutlineConfig = Field(default=OutlineConfig(), description="how masks get their outlines")
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
