"""Captions: what a scene shows, in a small closed wording, with parts of it left out at random."""

from __future__ import annotations

import numpy as np

from diffugen.toyworld.scene import Scene, SceneObject

_FRAMES = ("a photo of ", "a photo of ", "a picture of ", "an image of ", "")
PLACE_PHRASES = {
    "city": "in a city",
    "desert": "in a desert",
    "forest": "in a forest",
    "beach": "on a beach",
    "village": "in a village",
    "snowfield": "in a snowfield",
}
TIME_PHRASES = {"day": "by day", "sunset": "at sunset", "night": "at night"}
WEATHER_PHRASES = {"clear": "in clear weather", "rain": "in the rain", "fog": "in fog", "snow": "in snow"}

_SHORT = 0.25  # captions that name the objects only, and half of these without colours
_DROP_COLOUR, _DROP_PLACE, _DROP_TIME, _DROP_WEATHER, _DROP_CLEAR = 0.3, 0.3, 0.3, 0.4, 0.85


def phrase(thing: SceneObject, with_colour: bool = True) -> str:
    """ "red car", or "car"."""
    return f"{thing.colour} {thing.kind}" if with_colour else thing.kind


def caption(scene: Scene, seed: int) -> str:
    return caption_with_phrases(scene, seed)[0]


def caption_with_phrases(scene: Scene, seed: int) -> tuple[str, tuple[str, ...]]:
    """A caption and, aligned with scene.objects, each object's phrase as it stands in it."""
    rng = np.random.default_rng([seed, scene.seed, 5])
    short = rng.random() < _SHORT
    kinds = [thing.kind for thing in scene.objects]
    drop_colour = 0.6 if short else _DROP_COLOUR
    phrases = tuple(
        phrase(thing, with_colour=kinds.count(thing.kind) > 1 or rng.random() >= drop_colour) for thing in scene.objects
    )
    nouns = _listed([with_article(text) for text in phrases])
    words = [str(rng.choice(_FRAMES)) + nouns]
    drop_weather = _DROP_CLEAR if scene.weather == "clear" else _DROP_WEATHER
    for words_of, value, drop in (
        (PLACE_PHRASES, scene.place, _DROP_PLACE),
        (TIME_PHRASES, scene.time, _DROP_TIME),
        (WEATHER_PHRASES, scene.weather, drop_weather),
    ):
        if not short and rng.random() >= drop:
            words.append(words_of[value])
    return " ".join(words), phrases


def with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
