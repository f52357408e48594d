"""Settings of concept learning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from diffugen.config import ConfigPath, ModelConfig, Strict

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


class AugmentConfig(Strict):
    """Random changes to the photos; few photos need them lest the token learns the background."""

    views_per_photo: int = Field(default=16, ge=1, le=1024, description="augmented views, encoded once and drawn from")
    flip_probability: float = Field(default=0.5, ge=0, le=1, description="of a horizontal flip")
    scale_fraction: float = Field(default=0.1, ge=0, lt=1, description="zooms by a factor of 1 -/+ this")
    shift_fraction: float = Field(default=0.1, ge=0, lt=1, description="shifts by up to this share of each side")
    border: Literal["reflect", "edge"] = Field(
        default="reflect", description="what fills the space that a shift uncovers"
    )
    brightness: float = Field(default=0.1, ge=0, le=1, description="largest relative change of brightness")
    contrast: float = Field(default=0.1, ge=0, le=1, description="largest relative change of contrast")


class LoraSettings(Strict):
    """Cross-attention LoRA learned beside the token, for objects that the embedding alone cannot draw."""

    rank: int = Field(default=4, ge=1, le=256, description="rank of the update of each projection")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="peak rate of the LoRA weights")


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
    templates: tuple[str, ...] = Field(default=OBJECT_TEMPLATES, min_length=1, description="captions; {} is the token")
    height: int | None = Field(default=None, ge=16, multiple_of=8, description="pixels; null takes the model's")
    width: int | None = Field(default=None, ge=16, multiple_of=8, description="pixels; null takes the model's")
    augment: AugmentConfig = Field(default=AugmentConfig(), description="random changes to the photos")
    steps: int = Field(default=1000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=4, ge=1, description="views per step")
    learning_rate: float = Field(default=5e-3, gt=0, le=1, description="peak rate; it falls to a tenth along a cosine")
    max_norm_ratio: float | None = Field(
        default=None,
        gt=0,
        description="limit of a row's norm, in mean norms of the vocabulary; null sets none",
    )
    lora: LoraSettings | None = Field(default=None, description="also learn a cross-attention LoRA; null does not")
    checkpoint_every: int = Field(
        default=50, ge=1, description="steps between checkpoints, from which a killed run goes on"
    )
    samples: SamplesConfig = Field(
        default=SamplesConfig(), description="the sheet of images with and without the concept"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything random")

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1 or "{" in template.replace("{}", "") or "}" in template.replace("{}", ""):
                raise ValueError(f"template {template!r} must have exactly one {{}}, where the token goes")
        return templates


class ConceptRunConfig(Strict):
    """What `python -m textual_inversion` reads: a model and a concept."""

    model: ModelConfig
    concept: ConceptConfig
