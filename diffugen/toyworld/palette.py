"""Colours: the ones that captions name, and the fixed tones of parts."""

from __future__ import annotations

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (212, 40, 40),
    "blue": (40, 84, 214),
    "green": (44, 160, 66),
    "yellow": (244, 212, 44),
    "orange": (244, 132, 28),
    "purple": (134, 56, 172),
    "pink": (246, 138, 182),
    "white": (242, 242, 240),
    "black": (38, 38, 42),
    "brown": (126, 78, 42),
}

_TONES = {
    "black": (34, 34, 38),
    "white": (240, 240, 236),
    "grey": (150, 152, 158),
    "glass": (176, 214, 232),
    "wood": (138, 92, 54),
    "lamp": (255, 232, 140),
    "beak": (246, 140, 30),
    "smoke": (122, 122, 126),
    "second": (236, 236, 232),
}
_TONES |= {f"accent-{name}": rgb for name, rgb in COLOURS.items()}


def jittered(colour: str, rng: np.random.Generator) -> np.ndarray:
    """A named colour, slightly varied: float [3] in [0, 255]."""
    if colour not in COLOURS:
        raise ValueError(f"colour={colour!r} is unknown; use one of {', '.join(COLOURS)}")
    rgb = np.asarray(COLOURS[colour], dtype=np.float64)
    return np.clip(rgb * rng.uniform(0.93, 1.05) + rng.uniform(-6, 6, 3), 0, 255)


def tone_rgb(tone: str, main: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The colour of a part: `main`, a shade of it, the object's other colour or a fixed tone; float [3]."""
    if tone in ("main", "inner"):  # "inner" is painted without an outline
        return main
    if tone == "dark":
        return main * 0.68
    if tone == "light":
        return main * 0.6 + 255 * 0.4
    if tone == "second":
        return second
    return np.asarray(_TONES[tone], dtype=np.float64)
