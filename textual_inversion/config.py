"""Settings of concept learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from diffugen.config.loader import ConfigPath, Strict
from diffugen.config.settings import ModelConfig

OBJECT_TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a rendering of a {}",
    "a photo of the {}",
    "a photo of one {}",
    "a {}",
)
"""Plain captions, as a user's own photos would get them: no colour, place or time of day."""

STYLE_TEMPLATES = (
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a photo in the style of {}",
    "an image in the style of {}",
    "a rendering in the style of {}",
)
"""Captions for photos that share their manner rather than an object."""


class AugmentConfig(Strict):
    """Random changes to the photos; few photos need them lest the token learns the background."""

    fit: Literal["random_crop", "center_crop", "pad"] = Field(
        default="random_crop", description="photos of other proportions: cropped at random, in the middle, or padded"
    )
    views_per_photo: int = Field(default=16, ge=1, le=1024, description="augmented views, encoded once and drawn from")
    flip_probability: float = Field(default=0.5, ge=0, le=1, description="of a horizontal flip")
    scale_fraction: float = Field(default=0.1, ge=0, lt=1, description="zooms by a factor of 1 -/+ this")
    shift_fraction: float = Field(default=0.1, ge=0, lt=1, description="shifts by up to this share of each side")
    border: Literal["reflect", "edge"] = Field(
        default="reflect", description="what fills the space that a shift uncovers or 'pad' adds"
    )
    brightness: float = Field(default=0.1, ge=0, le=1, description="largest relative change of brightness")
    contrast: float = Field(default=0.1, ge=0, le=1, description="largest relative change of contrast")


class LoraSettings(Strict):
    """Cross-attention LoRA learned beside the token, for objects that the embedding alone cannot draw."""

    rank: int = Field(default=4, ge=1, le=256, description="rank of the update of each projection")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="peak rate of the LoRA weights")


class EarlyStopConfig(Strict):
    """Stop when photos that are held out get no better; the token is then the best one."""

    num_photos: int = Field(default=1, ge=1, description="photos held out, the last by name")
    every: int = Field(default=25, ge=1, description="steps between looks at them")
    patience: int = Field(default=4, ge=1, description="looks without a better loss after which training stops")


class SamplesConfig(Strict):
    """The sheet of images with and without the concept."""

    num_images: int = Field(default=4, ge=0, le=64, description="images with, and as many without; 0 draws no sheet")
    num_inference_steps: int = Field(default=20, ge=1, le=1000, description="denoising steps")
    guidance_scale: float = Field(default=5.0, ge=0, description="classifier-free guidance")


class ConceptConfig(Strict):
    """One concept: what it is called, what it looks like, and how it is learned."""

    placeholder_token: str = Field(
        pattern=r"^<[^<>\s]+>$", description="the new word, in angle brackets: '<grand-piano>'"
    )
    initializer_word: str = Field(min_length=1, description="a word of the model for something similar")
    photos: ConfigPath = Field(description="folder with a handful of photos of the object")
    num_vectors: int = Field(default=1, ge=1, le=32, description="embedding rows for the token")
    learns: Literal["object", "style"] = Field(default="object", description="what the photos have in common")
    templates: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="captions, {} is the token; null: common ones for an object or a style"
    )
    object_emphasis: float = Field(
        default=4.0,
        ge=0,
        description="how much more the loss counts where the model sees initializer_word; not for a style",
    )
    attention_factors: tuple[Literal[1, 2, 4, 8], ...] = Field(
        default=(1, 2, 4), min_length=1, description="resolutions of attention that say where that is, as in generate"
    )
    attention_blocks: tuple[Literal["down", "up"], ...] = Field(
        default=("down", "up"), min_length=1, description="blocks of the UNet that say so, as in generate"
    )
    height: int | None = Field(default=None, ge=16, multiple_of=8, description="pixels; null takes the model's")
    width: int | None = Field(default=None, ge=16, multiple_of=8, description="pixels; null takes the model's")
    augment: AugmentConfig = Field(default=AugmentConfig(), description="random changes to the photos")
    steps: int = Field(default=1000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=4, ge=1, description="views at a time")
    accumulate_batches: int = Field(default=1, ge=1, description="batches per step")
    num_devices: int = Field(default=1, ge=1, description="GPUs (or CPU processes) that train together")
    learning_rate: float = Field(default=5e-3, gt=0, le=1, description="peak rate; it falls to a tenth along a cosine")
    max_norm_ratio: float | None = Field(
        default=None,
        gt=0,
        description="limit of a row's norm, in mean norms of the vocabulary; null sets none",
    )
    lora: LoraSettings | None = Field(default=None, description="also learn a cross-attention LoRA; null does not")
    early_stop: EarlyStopConfig | None = Field(default=None, description="hold photos out and stop by them")
    checkpoint_every: int = Field(
        default=50, ge=1, description="steps between checkpoints, from which a killed run goes on"
    )
    samples: SamplesConfig = Field(
        default=SamplesConfig(), description="the sheet of images with and without the concept"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything random")

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for template in templates or ():
            if template.count("{}") != 1 or "{" in template.replace("{}", "") or "}" in template.replace("{}", ""):
                raise ValueError(f"template {template!r} must have exactly one {{}}, where the token goes")
        return templates

    @property
    def caption_templates(self) -> tuple[str, ...]:
        """The templates, the common ones where the config has none."""
        return self.templates or (OBJECT_TEMPLATES if self.learns == "object" else STYLE_TEMPLATES)


def _as_list(values: Any) -> Any:
    return [] if values is None else [values] if isinstance(values, Mapping | ConceptConfig) else values


def _distinct(concepts: tuple[ConceptConfig, ...]) -> tuple[ConceptConfig, ...]:
    tokens = [concept.placeholder_token for concept in concepts]
    if repeated := [token for token in tokens if tokens.count(token) > 1]:
        raise ValueError(f"placeholder_token {repeated[0]!r} is learned twice; give each concept a token of its own")
    if sum(concept.lora is not None for concept in concepts) > 1:
        raise ValueError("several concepts have a lora, but a model takes one; leave the others out")
    return concepts


Concepts = Annotated[
    tuple[ConceptConfig, ...],
    BeforeValidator(_as_list, json_schema_input_type=ConceptConfig | tuple[ConceptConfig, ...] | None),
    AfterValidator(_distinct),
]
"""One concept, or a list of them, or null; each is learned by itself."""


class ConceptRunConfig(Strict):
    """What `python -m textual_inversion` reads: a model, and one concept or several."""

    model: ModelConfig
    concept: Concepts = Field(min_length=1, description="one concept, or a list")
