"""The rare concepts: three things that no training scene shows."""

from __future__ import annotations

import numpy as np

from diffugen.toyworld.shapes import Part, bar, box, ellipse, moved, polygon, smooth


def grand_piano(rng: np.random.Generator) -> list[Part]:
    """Keyboard at the left, tail at the right, lid raised towards the viewer's back on a prop."""
    length, lift = rng.uniform(2.0, 2.3), rng.uniform(0.8, 1.0)
    keys = [box(-0.1 + 0.17 * i, 0.86, 0.08, 0.13, "black") for i in range(4)]
    return [
        box(0.16, 0, 0.17, 0.75, "dark"),
        box(0.85, 0, 0.15, 0.75, "dark"),
        box(length - 0.45, 0, 0.17, 0.75, "dark"),
        polygon(
            (0.5, 1.12), (length - 0.1, 1.12), (length * 0.98, 1.2 + lift), (0.85, 1.0 + lift * 0.75), tone="light"
        ),
        polygon(
            (0.62, 1.08),
            (length - 0.28, 1.08),
            (length - 0.12, 1.0 + lift * 0.8),
            (0.92, 0.98 + lift * 0.55),
            tone="dark",
        ),
        bar(length * 0.45, 1.05, length * 0.62, 1.1 + lift * 0.72, 0.11, "wood"),
        smooth(
            (0.1, 0.62),
            (0.1, 1.16),
            (0.1, 1.18),
            (length * 0.6, 1.14),
            (length, 1.16),
            (length + 0.1, 0.9),
            (length - 0.08, 0.62),
            (length * 0.72, 0.58),
            (length * 0.45, 0.66),
        ),
        box(-0.2, 0.66, 0.8, 0.2),
        box(-0.2, 0.84, 0.76, 0.17, "white"),
        *keys,
    ]


def _crumpled_car(rng: np.random.Generator, tone: str) -> list[Part]:
    """A car driving right whose front is pushed in and up."""
    dent = rng.uniform(0.0, 0.12)
    rim = 0.24
    return [
        polygon((0.3, 0.6), (1.32, 0.66), (1.1, 1.02 - dent), (0.86, 1.1), (0.5, 1.04), tone=tone),
        polygon((0.46, 0.64), (1.12, 0.68), (0.98, 0.9 - dent), (0.58, 0.94), tone="glass"),
        polygon(
            (0, 0.2),
            (1.8, 0.16),
            (1.66, 0.34),
            (1.84, 0.46),
            (1.62, 0.6),
            (1.7, 0.86),
            (1.4, 0.76),
            (1.2, 0.64),
            (0.05, 0.64),
            tone=tone,
        ),
        ellipse(0.44, rim, rim, rim, "black"),
        ellipse(0.44, rim, rim * 0.45, rim * 0.45, "grey"),
        ellipse(1.36, rim * 0.9, rim, rim * 0.85, "black"),
        ellipse(1.36, rim * 0.9, rim * 0.45, rim * 0.4, "grey"),
    ]


def car_accident(rng: np.random.Generator) -> list[Part]:
    """Two cars in one another, the other one tilted, with smoke and debris; one object."""
    tilt = np.deg2rad(rng.uniform(8, 16))
    other = moved(_crumpled_car(rng, "second"), 3.25, 0, scale_x=-1)
    pivot = np.array([3.25, 0.0])
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    # Tilted about its rear wheel, the other car's front climbs onto the first one.
    other = [Part((part.points - pivot) @ turn + pivot, part.tone) for part in other]
    return [
        ellipse(1.35, 1.3, 0.28, 0.26, "smoke"),
        ellipse(1.62, 1.62, 0.34, 0.3, "smoke"),
        ellipse(1.9, 1.3, 0.3, 0.28, "smoke"),
        *_crumpled_car(rng, "main"),
        *other,
        polygon((1.5, 0), (1.98, 0), (1.86, 0.22), (1.66, 0.28), tone="grey"),
    ]


def rubber_duck(rng: np.random.Generator) -> list[Part]:
    head, length = rng.uniform(0.42, 0.48), rng.uniform(0.92, 1.05)
    x, y = 0.42, 0.98
    return [
        polygon(
            (x + head * 0.6, y - 0.14),
            (x + head + 0.34, y - 0.1),
            (x + head + 0.3, y + 0.06),
            (x + head * 0.6, y + 0.16),
            tone="beak",
        ),
        smooth(
            (-length - 0.12, 0.98),
            (-length * 0.75, 0.1),
            (-length * 0.4, -0.02),
            (length * 0.5, -0.02),
            (length * 0.95, 0.2),
            (length * 0.9, 0.6),
            (0.3, 0.72),
            (-0.45, 0.66),
            rounds=3,
        ),
        ellipse(x, y, head, head * 0.96),
        ellipse(x + 0.16, y + 0.12, 0.085, 0.1, "black"),
        smooth((-0.75, 0.62), (-0.5, 0.24), (0.12, 0.22), (0.3, 0.48), (-0.1, 0.54), tone="dark"),
    ]


RARE = {"grand-piano": grand_piano, "car-accident": car_accident, "rubber-duck": rubber_duck}
