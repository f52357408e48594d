"""Settings of concept learning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from diffugen.config.errors import SettingError
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


_NOT_IN_TOKENS = re.compile(r"[<>]|\s+")


def _token_of_folder(data: dict[str, Any]) -> str:
    photos = data.get("photos")
    name = photos.name if isinstance(photos, Path) else ""
    return f"<{_NOT_IN_TOKENS.sub('-', name) or 'concept'}>"


class ConceptConfig(Strict):
    """One concept: what it is called, what it looks like, and how it is learned."""

    renamed: ClassVar[Mapping[str, str]] = {
        "attention_factors": "is now 'generate.attention.factors', which the concept shares",
        "attention_blocks": "is now 'generate.attention.blocks', which the concept shares",
        "height": "was removed: a concept is learned at the model's own size",
        "width": "was removed: a concept is learned at the model's own size",
        "augment": "was removed: photos are cropped, flipped, moved and relit as textual_inversion/data.py says",
        "samples": "was removed: the sheet shows three images, made with 'generate.num_inference_steps' and "
        "'generate.guidance_scale'",
        "checkpoint_every": "was removed: there is a checkpoint every 50 steps",
        "accumulate_batches": "was removed: lower 'batch_size' where memory is short",
        "learns": "was removed: for a style give 'templates' such as \"a painting in the style of {}\" and set "
        "'object_emphasis' to 0",
        "lora": "is now 'lora_rank', a number; its learning rate is 1e-4",
        "early_stop": "was removed: a loop keeps the step whose images are most like the photos",
        "num_held_out_photos": "was removed: a loop keeps the step whose images are most like the photos",
        "seed": "was removed: the config's own 'seed' decides",
    }

    photos: ConfigPath = Field(description="folder with a handful of photos of the object")
    placeholder_token: str = Field(
        default_factory=_token_of_folder,
        pattern=r"^<[^<>\s]+>$",
        description="the new word, in angle brackets: '<grand-piano>' (default: the name of the folder of photos)",
    )
    initializer_word: str | None = Field(
        default=None,
        min_length=1,
        description="a word of the model for something similar (default, in a loop: of the base detector's classes "
        "the one with which the model denoises the photos best)",
    )
    num_vectors: int = Field(default=1, ge=1, le=32, description="embedding rows for the token")
    templates: tuple[str, ...] = Field(
        default=OBJECT_TEMPLATES, min_length=1, description="captions of the photos, {} is the token"
    )
    object_emphasis: float = Field(
        default=4.0,
        ge=0,
        le=100,
        description="how much more the loss counts where the model sees initializer_word; 0: all pixels count alike",
    )
    steps: int = Field(default=1000, ge=1, le=1_000_000, description="optimizer steps")
    batch_size: int = Field(default=4, ge=1, le=1024, description="views of the photos at a time")
    num_devices: int = Field(default=1, ge=1, le=1024, description="GPUs (or CPU processes) that train together")
    learning_rate: float = Field(default=5e-3, gt=0, le=1, description="peak rate; it falls to a tenth along a cosine")
    max_norm_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="limit of a row's norm, in mean norms of the vocabulary (null: none)",
    )
    lora_rank: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="also learn a cross-attention LoRA of this rank, for objects that the token alone cannot draw "
        "(null: none)",
    )
    on_failure: Literal["stop", "continue"] = Field(
        default="stop",
        description="what a loop does where the learned word draws nothing of the photos",
    )

    @property
    def start_word(self) -> str:
        """`initializer_word`, which is chosen before anything is learned where the config leaves it out."""
        assert self.initializer_word is not None
        return self.initializer_word

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1 or "{" in template.replace("{}", "") or "}" in template.replace("{}", ""):
                raise ValueError(f"template {template!r} must have exactly one {{}}, where the token goes")
        return templates


def _as_list(values: Any) -> Any:
    return [] if values is None else [values] if isinstance(values, Mapping | ConceptConfig) else values


def _distinct(concepts: tuple[ConceptConfig, ...]) -> tuple[ConceptConfig, ...]:
    tokens = [concept.placeholder_token for concept in concepts]
    if repeated := [token for token in tokens if tokens.count(token) > 1]:
        raise ValueError(f"placeholder_token {repeated[0]!r} is learned twice; give each concept a token of its own")
    if sum(concept.lora_rank is not None for concept in concepts) > 1:
        raise ValueError("several concepts have a lora_rank, but a model takes one LoRA; leave the others out")
    return concepts


Concepts = Annotated[
    tuple[ConceptConfig, ...],
    BeforeValidator(_as_list, json_schema_input_type=ConceptConfig | tuple[ConceptConfig, ...] | None),
    AfterValidator(_distinct),
]
"""One concept, or a list of them, or null; each is learned by itself."""


class WithConcepts(Strict):
    """Configs that may have concepts."""

    concept: Concepts = Field(
        default=(), description="the rare object's new word, where it needs one; or a list of such; null: none"
    )


class ConceptRunConfig(Strict):
    """What `diffugen learn` reads: a model, and one concept or several."""

    model: ModelConfig = Field(description="the diffusion model")
    concept: Concepts = Field(min_length=1, description="one concept, or a list")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything random")

    @model_validator(mode="after")
    def _start_words(self) -> ConceptRunConfig:
        if any(concept.initializer_word is None for concept in self.concept):
            raise SettingError("concept.initializer_word", "is missing; give a word for something similar")
        return self
