"""Toy world: road scenes drawn from a seed, with exact masks and captions.

scene (what is there) -> render (picture and masks); captions (words for it); rarity (how unlike training).
"""

from diffugen.toyworld.captions import caption, caption_with_phrases, phrase
from diffugen.toyworld.palette import COLOURS
from diffugen.toyworld.rarity import closest_training_kind, rarity_table
from diffugen.toyworld.render import Rendered, render, silhouette
from diffugen.toyworld.scene import (
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
