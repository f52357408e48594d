"""The common kinds: everyday things, each drawn from a few big parts.

A kind is a function from a generator (which varies the proportions) to its parts, first part drawn first.
"""

from __future__ import annotations

import numpy as np

from diffugen.toyworld.shapes import Part, box, ellipse, polygon, rounded_box, trapezoid, wheel


def car(rng: np.random.Generator) -> list[Part]:
    cabin, height = rng.uniform(1.0, 1.25), rng.uniform(0.4, 0.5)
    return [
        trapezoid(0.45, 0.55, cabin, height, 0.62),
        trapezoid(0.58, 0.56, cabin - 0.26, height - 0.12, 0.62, "glass"),
        rounded_box(0, 0.18, 2.2, 0.46, 0.14),
        box(2.02, 0.36, 0.18, 0.16, "lamp"),
        *wheel(0.5, 0.24),
        *wheel(1.7, 0.24),
    ]


def bus(rng: np.random.Generator) -> list[Part]:
    length, height = rng.uniform(2.3, 2.7), rng.uniform(1.05, 1.25)
    panes = [
        box(0.14 + i * (length - 0.2) / 4, 0.72, (length - 0.2) / 4 - 0.12, height * 0.42, "glass") for i in range(4)
    ]
    return [
        rounded_box(0, 0.18, length, height, 0.14),
        *panes,
        box(0, 0.42, length, 0.12, "white"),
        *wheel(0.5, 0.24),
        *wheel(length - 0.5, 0.24),
    ]


def truck(rng: np.random.Generator) -> list[Part]:
    cargo, height = rng.uniform(1.35, 1.65), rng.uniform(1.0, 1.2)
    return [
        box(0, 0.18, cargo + 0.75, 0.16, "black"),
        box(0, 0.32, cargo, height, "white"),
        polygon((cargo + 0.06, 0.3), (cargo + 0.8, 0.3), (cargo + 0.8, 0.68), (cargo + 0.58, 1.1), (cargo + 0.06, 1.1)),
        polygon((cargo + 0.3, 0.68), (cargo + 0.7, 0.68), (cargo + 0.52, 1.0), (cargo + 0.3, 1.0), tone="glass"),
        box(0, 0.55, cargo, 0.26, "main"),
        *wheel(0.4, 0.25),
        *wheel(cargo + 0.42, 0.25),
    ]


def house(rng: np.random.Generator) -> list[Part]:
    width, height, roof = rng.uniform(1.2, 1.5), rng.uniform(0.75, 0.95), rng.uniform(0.5, 0.7)
    return [
        box(width * 0.72, height, 0.2, roof * 0.95, "dark"),
        box(0, 0, width, height),
        polygon((-0.14, height), (width + 0.14, height), (width / 2, height + roof), tone="accent-brown"),
        box(width * 0.56, 0, 0.28, 0.52, "wood"),
        box(width * 0.14, height * 0.4, 0.3, 0.3, "glass"),
    ]


def tree(rng: np.random.Generator) -> list[Part]:
    r, trunk = rng.uniform(0.42, 0.52), rng.uniform(0.5, 0.7)
    return [
        box(-0.11, 0, 0.22, trunk + 0.2, "wood"),
        ellipse(-0.33, trunk + 0.35, r, r * 0.85),
        ellipse(0.33, trunk + 0.35, r, r * 0.85),
        ellipse(0, trunk + 0.68, r * 1.05, r),
    ]


def tent(rng: np.random.Generator) -> list[Part]:
    width, height = rng.uniform(1.5, 1.9), rng.uniform(0.95, 1.2)
    peak = width * 0.4
    return [
        polygon((0.8 * width, 0), (width * 1.25, 0.14), (width * 0.75, height * 0.96), (peak, height), tone="dark"),
        polygon((0, 0), (0.82 * width, 0), (peak, height)),
        polygon((0.25 * width, 0), (0.57 * width, 0), (peak, height * 0.72), tone="black"),
    ]


def cone(rng: np.random.Generator) -> list[Part]:
    height, half = rng.uniform(1.15, 1.4), rng.uniform(0.34, 0.4)

    def slice_of(low: float, high: float, tone: str) -> Part:
        a, b = half * (1 - 0.82 * low), half * (1 - 0.82 * high)
        return polygon(
            (-a, 0.14 + low * height),
            (a, 0.14 + low * height),
            (b, 0.14 + high * height),
            (-b, 0.14 + high * height),
            tone=tone,
        )

    return [
        rounded_box(-half - 0.2, 0, 2 * half + 0.4, 0.18, 0.05, "dark"),
        slice_of(0, 1, "main"),
        slice_of(0.3, 0.48, "white"),
        slice_of(0.66, 0.8, "white"),
    ]


def barrel(rng: np.random.Generator) -> list[Part]:
    half, height = rng.uniform(0.4, 0.46), rng.uniform(1.15, 1.35)
    side = np.linspace(0, 1, 9)
    bulge = half + 0.12 * np.sin(np.pi * side)
    outline = np.concatenate([np.stack([bulge, side * height], 1), np.stack([-bulge, side * height], 1)[::-1]])
    return [
        Part(outline),
        box(-half - 0.08, height * 0.2, 2 * half + 0.16, 0.13, "grey"),
        box(-half - 0.08, height * 0.7, 2 * half + 0.16, 0.13, "grey"),
        ellipse(0, height, half, 0.12, "light"),
    ]


def bench(rng: np.random.Generator) -> list[Part]:
    length, back = rng.uniform(1.7, 2.1), rng.uniform(0.44, 0.54)
    return [
        box(0.16, 0, 0.2, 1.0, "grey"),
        box(length - 0.36, 0, 0.2, 1.0, "grey"),
        box(0, 0.66, length, back),
        box(0, 0.66 + back * 0.42, length, 0.07, "dark"),
        box(-0.06, 0.4, length + 0.12, 0.22, "light"),
    ]


def boat(rng: np.random.Generator) -> list[Part]:
    height = rng.uniform(1.2, 1.5)
    return [
        box(0.92, 0.4, 0.13, height + 0.05, "wood"),
        polygon((1.09, 0.6), (1.85, 0.6), (1.09, 0.5 + height), tone="white"),
        polygon((0.88, 0.66), (0.35, 0.66), (0.88, 0.4 + height), tone="light"),
        polygon((0.35, 0), (1.75, 0), (2.2, 0.52), (0, 0.52)),
        box(0.05, 0.4, 2.05, 0.12, "dark"),
    ]


def rocket(rng: np.random.Generator) -> list[Part]:
    height, half = rng.uniform(1.15, 1.4), rng.uniform(0.3, 0.36)
    return [
        polygon((-half - 0.32, 0), (-half + 0.1, 0.2), (-half + 0.1, 0.75), tone="dark"),
        polygon((half + 0.32, 0), (half - 0.1, 0.2), (half - 0.1, 0.75), tone="dark"),
        box(-half, 0.16, 2 * half, height),
        polygon(
            (-half, 0.16 + height),
            (half, 0.16 + height),
            (half * 0.7, 0.5 + height),
            (0, 0.85 + height),
            (-half * 0.7, 0.5 + height),
            tone="white",
        ),
        ellipse(0, height * 0.78, 0.19, 0.19, "glass"),
    ]


def sign(rng: np.random.Generator) -> list[Part]:
    r = rng.uniform(0.46, 0.54)
    angle = np.deg2rad(np.arange(8) * 45 + 22.5)
    octagon = np.stack([np.cos(angle), np.sin(angle)], 1)
    return [
        box(-0.09, 0, 0.18, 1.1, "grey"),
        Part(octagon * r + (0, 1.3)),
        box(-r * 0.62, 1.3 - 0.1, r * 1.24, 0.2, "white"),
    ]


def sheep(rng: np.random.Generator) -> list[Part]:
    length = rng.uniform(0.62, 0.74)
    puffs = [
        ellipse(length * np.cos(a), 0.78 + 0.26 * np.sin(a), 0.27, 0.25) for a in np.linspace(0, 2 * np.pi, 9)[:-1]
    ]
    return [
        *[box(x, 0, 0.16, 0.5, "black") for x in (-0.55, -0.25, 0.15, 0.42)],
        *puffs,
        ellipse(0, 0.78, length, 0.34, "inner"),
        ellipse(length + 0.26, 1.0, 0.27, 0.21, "black"),
        ellipse(length + 0.32, 1.05, 0.06, 0.06, "white"),
    ]


def snowman(rng: np.random.Generator) -> list[Part]:
    r = rng.uniform(0.5, 0.58)
    return [
        ellipse(0, r * 0.92, r, r * 0.92),
        ellipse(0, r * 2.25, r * 0.72, r * 0.7),
        box(-r * 0.62, r * 1.66, r * 1.24, 0.16, "accent-red"),
        box(-r * 0.75, r * 2.75, r * 1.5, 0.13, "black"),
        box(-r * 0.48, r * 2.8, r * 0.96, 0.4, "black"),
        polygon((0.02, r * 2.15), (0.02, r * 2.42), (r * 0.85, r * 2.25), tone="beak"),
        ellipse(-r * 0.26, r * 2.45, 0.07, 0.07, "black"),
    ]


def mushroom(rng: np.random.Generator) -> list[Part]:
    half, height = rng.uniform(0.72, 0.86), rng.uniform(0.55, 0.7)
    return [
        trapezoid(-0.27, 0, 0.54, height + 0.1, 0.8, "white"),
        ellipse(0, height, half, 0.72, start=0, stop=180),
        ellipse(-0.32, height + 0.24, 0.14, 0.12, "white"),
        ellipse(0.3, height + 0.26, 0.15, 0.13, "white"),
        ellipse(-0.02, height + 0.5, 0.13, 0.1, "white"),
    ]


def lamp(rng: np.random.Generator) -> list[Part]:
    height = rng.uniform(1.3, 1.6)
    return [
        trapezoid(-0.36, 0, 0.72, 0.2, 0.6),
        box(-0.1, 0.1, 0.2, height),
        trapezoid(-0.24, height, 0.48, 0.5, 1.5, "lamp"),
        trapezoid(-0.46, height + 0.46, 0.92, 0.28, 0.3),
    ]


def cactus(rng: np.random.Generator) -> list[Part]:
    height, left, right = rng.uniform(1.5, 1.8), rng.uniform(0.5, 0.75), rng.uniform(0.65, 0.9)
    return [
        rounded_box(-0.66, left, 0.26, 0.62, 0.13),
        rounded_box(-0.66, left, 0.6, 0.25, 0.12),
        rounded_box(0.42, right, 0.26, 0.6, 0.13),
        rounded_box(0.08, right, 0.6, 0.25, 0.12),
        rounded_box(-0.22, 0, 0.44, height, 0.22),
        box(-0.04, 0.1, 0.08, height - 0.3, "light"),
    ]


COMMON = {
    maker.__name__: maker
    for maker in (
        car,
        bus,
        truck,
        house,
        tree,
        tent,
        cone,
        barrel,
        bench,
        boat,
        rocket,
        sign,
        sheep,
        snowman,
        mushroom,
        lamp,
        cactus,
    )
}
