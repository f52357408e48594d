"""Toy world: road scenes drawn from a seed, with exact masks and captions.

scene (what is there) -> render (picture and masks); captions (words for it); rarity (how unlike training).
"""

from .captions import caption, caption_with_phrases, phrase
from .palette import COLOURS
from .rarity import closest_training_kind, rarity_table
from .render import Rendered, render, silhouette
from .scene import (
    COMMON_KINDS,
    INVENTED_KINDS,
    PLACES,
    RARE_KINDS,
    TIMES,
    TRAINING_KINDS,
    WEATHERS,
    Scene,
    SceneObject,
    sample_scene,
)

__all__ = [
    "COLOURS",
    "COMMON_KINDS",
    "INVENTED_KINDS",
    "PLACES",
    "RARE_KINDS",
    "TIMES",
    "TRAINING_KINDS",
    "WEATHERS",
    "Rendered",
    "Scene",
    "SceneObject",
    "caption",
    "caption_with_phrases",
    "closest_training_kind",
    "phrase",
    "rarity_table",
    "render",
    "sample_scene",
    "silhouette",
]
