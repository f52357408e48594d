"""Scenes: what is in a picture, before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffugen.toyworld.invented import genomes, invented_parts
from diffugen.toyworld.kinds import COMMON
from diffugen.toyworld.palette import COLOURS
from diffugen.toyworld.rare import RARE
from diffugen.toyworld.shapes import Part, centred, moved

COMMON_KINDS: tuple[str, ...] = tuple(COMMON)
INVENTED_KINDS: tuple[str, ...] = tuple(genomes())
RARE_KINDS: tuple[str, ...] = tuple(RARE)
TRAINING_KINDS = COMMON_KINDS + INVENTED_KINDS
PLACES = ("city", "desert", "forest", "beach", "village", "snowfield")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "rain", "fog", "snow")

_COUNT_WEIGHTS = (0.5, 0.35, 0.15)  # one, two, three objects
_WEATHER_WEIGHTS = (0.55, 0.15, 0.15, 0.15)
# Share of the image that an object's silhouette should cover, by the number of objects.
_AREA_RANGE = {1: (0.07, 0.20), 2: (0.06, 0.14), 3: (0.05, 0.10)}
_TWIN_PROBABILITY = 0.05  # multi-object scenes that may show one kind twice


@dataclass(frozen=True)
class SceneObject:
    """One object: its kind, named colour, the seed of its instance and the share of the image it should cover."""

    kind: str
    colour: str
    seed: int
    area: float

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.colour not in COLOURS:
            raise ValueError(f"colour={self.colour!r} is unknown; use one of {', '.join(COLOURS)}")


@dataclass(frozen=True)
class Scene:
    """A road scene; its seed fixes the backdrop and the placement of the objects."""

    place: str
    time: str
    weather: str
    objects: tuple[SceneObject, ...]
    seed: int

    def __post_init__(self) -> None:
        _check_choice("place", self.place, PLACES)
        _check_choice("time", self.time, TIMES)
        _check_choice("weather", self.weather, WEATHERS)
        if not 1 <= len(self.objects) <= 3:
            raise ValueError(f"a scene of {len(self.objects)} objects is out of range 1 to 3; change num_objects")


def check_kind(kind: str) -> None:
    if kind not in COMMON and kind not in RARE and kind not in genomes():
        raise ValueError(f"kind={kind!r} is unknown; use one of TRAINING_KINDS or RARE_KINDS, e.g. {COMMON_KINDS[0]!r}")


def instance_parts(kind: str, seed: int) -> list[Part]:
    """One instance of a kind, mirrored at random: centred on x = 0, standing on y = 0, sqrt(box area) = 1."""
    check_kind(kind)
    rng = np.random.default_rng([seed, 11])
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    stretch = rng.uniform(0.95, 1.05)
    maker = COMMON.get(kind) or RARE.get(kind)
    parts = maker(rng) if maker else invented_parts(kind, rng)
    return centred(moved(parts, scale_x=mirror * stretch, scale_y=1 / stretch))


def sample_scene(
    seed: int,
    *,
    kinds: Sequence[str] | None = None,
    num_objects: int | None = None,
    required_kinds: Sequence[str] = (),
    common_fraction: float = 0.6,
    place: str | None = None,
    time: str | None = None,
    weather: str | None = None,
    colour: str | None = None,
) -> Scene:
    """Draw a scene.

    Args:
        seed: non-negative; the same arguments give the same scene in every process.
        kinds: what to draw from, uniformly; None means common kinds with probability `common_fraction`, else
            invented ones.
        num_objects: 1 to 3; None draws it (at least as many as `required_kinds`).
        required_kinds: placed for sure, before the others.
        place, time, weather: fixed instead of drawn.
        colour: fixed colour of the required kinds, or of all objects where none is required.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} is out of range; use an integer >= 0")
    if not 0 <= common_fraction <= 1:
        raise ValueError(f"common_fraction={common_fraction} is out of range; use 0 to 1")
    if len(required_kinds) > 3:
        raise ValueError(f"required_kinds has {len(required_kinds)} entries, more than the 3 that fit; shorten it")
    if kinds is not None and not kinds:
        raise ValueError("kinds=() is empty; give at least one kind, or None for the training kinds")
    rng = np.random.default_rng([seed, 1])
    drawn = 1 + int(rng.choice(3, p=_COUNT_WEIGHTS))
    count = max(drawn, len(required_kinds), 1) if num_objects is None else num_objects
    if not max(1, len(required_kinds)) <= count <= 3:
        raise ValueError(
            f"num_objects={count} is out of range {max(1, len(required_kinds))} to 3; it includes the required_kinds"
        )
    chosen = _choose_kinds(rng, kinds, count, list(required_kinds), common_fraction)
    fixed = [colour if colour and (not required_kinds or i < len(required_kinds)) else None for i in range(count)]
    colours = _choose_colours(rng, chosen, fixed)
    low, high = _AREA_RANGE[count]
    objects = tuple(
        SceneObject(kind, name, seed=int(rng.integers(2**31)), area=float(rng.uniform(low, high)))
        for kind, name in zip(chosen, colours, strict=True)
    )
    return Scene(
        place=place or str(rng.choice(PLACES)),
        time=time or str(rng.choice(TIMES)),
        weather=weather or str(rng.choice(WEATHERS, p=_WEATHER_WEIGHTS)),
        objects=objects,
        seed=seed,
    )


def _choose_kinds(rng, kinds, count: int, required: list[str], common_fraction: float) -> list[str]:
    """Distinct kinds after the required ones, but for a few twins and where `kinds` offers too few."""
    chosen = list(required)
    too_few = kinds is not None and len(set(kinds) | set(required)) < count
    twin = kinds is None and rng.random() < _TWIN_PROBABILITY
    while len(chosen) < count:
        if twin and chosen and len(chosen) == count - 1:
            chosen.append(chosen[-1])
            break
        pool = kinds if kinds is not None else COMMON_KINDS if rng.random() < common_fraction else INVENTED_KINDS
        kind = pool[int(rng.integers(len(pool)))]
        if too_few or kind not in chosen:
            chosen.append(kind)
    return chosen


def _choose_colours(rng, chosen: list[str], fixed: list[str | None]) -> list[str]:
    """One colour per object; objects of one kind get different ones."""
    colours: list[str] = []
    for i, kind in enumerate(chosen):
        used = {colours[j] for j in range(i) if chosen[j] == kind}
        free = [name for name in COLOURS if name not in used]
        drawn = free[int(rng.integers(len(free)))]
        wanted = fixed[i]
        colours.append(wanted if wanted is not None and wanted not in used else drawn)
    return colours


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(allowed)}")
