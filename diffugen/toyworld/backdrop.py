"""The road and what lies behind it: sky, horizon, ground, asphalt; and the weather in front."""

from __future__ import annotations

import cv2
import numpy as np

from diffugen.toyworld.shapes import SUBPIXEL_BITS

# Sky at the top and at the horizon, and the light that falls on the ground.
_SKY = {
    "day": ((86, 160, 230), (196, 226, 244)),
    "sunset": ((120, 74, 140), (252, 168, 96)),
    "night": ((12, 16, 44), (40, 48, 88)),
}
_LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (0.98, 0.8, 0.72), "night": (0.4, 0.44, 0.58)}
_GROUND = {
    "city": (150, 150, 152),
    "desert": (226, 190, 128),
    "forest": (92, 136, 68),
    "beach": (240, 220, 168),
    "village": (134, 184, 92),
    "snowfield": (228, 236, 242),
}
_ROAD = (104, 106, 112)
_HAZE = {"day": (206, 211, 216), "sunset": (216, 184, 168), "night": (84, 90, 108)}


def light(time: str) -> np.ndarray:
    return np.asarray(_LIGHT[time])


def horizon_of(seed: int) -> float:
    """The height of a scene's horizon, as a fraction of H from the top."""
    return float(np.random.default_rng([seed, 6]).uniform(0.36, 0.48))


def draw_backdrop(place: str, time: str, weather: str, seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """The empty scene: uint8 [H, W, 3] RGB."""
    rng = np.random.default_rng([seed, 2])
    height, width = size_hw
    horizon = horizon_of(seed)
    edge = round(horizon * height)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:edge] = _sky(time, weather, edge)[:, None]
    lit = light(time)
    _draw_horizon(canvas, place, lit, edge, rng)
    ground = np.asarray(_GROUND[place]) * lit * rng.uniform(0.95, 1.03)
    shade = np.linspace(0.93, 1.0, height - edge)[:, None]
    canvas[edge:] = np.clip(ground * shade, 0, 255).astype(np.uint8)[:, None]
    _draw_road(canvas, place, lit, edge, rng)
    if weather == "fog":
        # Denser far away: full at the horizon, thin at the feet of the viewer.
        haze = np.asarray(_HAZE[time], np.float32)
        rows = np.arange(height) / height
        density = np.where(rows < horizon, 0.6, 0.6 - 0.4 * (rows - horizon) / (1 - horizon)).astype(np.float32)
        canvas = np.asarray(
            cv2.convertScaleAbs(canvas * (1 - density)[:, None, None] + haze * density[:, None, None]), np.uint8
        )
    return canvas


def _sky(time: str, weather: str, rows: int) -> np.ndarray:
    """Colours from the top to the horizon: uint8 [rows, 3]; greyer under rain and snow."""
    top, low = (np.asarray(rgb, float) for rgb in _SKY[time])
    colours = top + (low - top) * np.linspace(0, 1, rows)[:, None]
    if weather in ("rain", "snow"):
        grey = colours.mean(axis=1, keepdims=True) * 0.9
        colours = 0.35 * colours + 0.65 * grey
    return colours.astype(np.uint8)


def _draw_horizon(canvas: np.ndarray, place: str, lit: np.ndarray, edge: int, rng: np.random.Generator) -> None:
    """Silhouettes that rise from the horizon; lengths in units of the image's mean side."""
    width = canvas.shape[1]
    unit = float(np.sqrt(canvas.shape[0] * width))

    def colour(*rgb: int) -> tuple[float, ...]:
        return tuple((np.asarray(rgb) * lit).tolist())

    def fill(points, rgb) -> None:
        cv2.fillPoly(
            canvas, [np.rint(np.asarray(points) * (1 << SUBPIXEL_BITS)).astype(np.int32)], rgb, shift=SUBPIXEL_BITS
        )

    x = -rng.uniform(0, 0.1) * unit
    if place == "city":
        while x < width:
            w, h = rng.uniform(0.12, 0.2) * unit, rng.uniform(0.12, 0.3) * unit
            tone = rng.uniform(0.85, 1.1)
            fill(
                [(x, edge), (x, edge - h), (x + w, edge - h), (x + w, edge)],
                colour(*(np.array([128, 134, 152]) * tone)),
            )
            pane = 0.025 * unit
            for wx in np.arange(x + pane, x + w - 1.5 * pane, 2 * pane):
                for wy in np.arange(edge - h + pane, edge - 2 * pane, 2.4 * pane):
                    lamp = (240, 214, 130) if lit[0] < 0.9 and rng.random() < 0.5 else colour(168, 178, 196)
                    fill([(wx, wy), (wx + pane, wy), (wx + pane, wy + 1.3 * pane), (wx, wy + 1.3 * pane)], lamp)
            x += w
    elif place == "desert":
        while x < width:
            w, h = rng.uniform(0.4, 0.7) * unit, rng.uniform(0.07, 0.16) * unit
            fill(
                [(x, edge), (x + 0.2 * w, edge - h), (x + 0.6 * w, edge - h), (x + 0.85 * w, edge)],
                colour(200, 128, 84),
            )
            x += w * 0.9
    elif place == "forest":
        while x < width:
            w, h = rng.uniform(0.09, 0.14) * unit, rng.uniform(0.16, 0.3) * unit
            fill(
                [(x - 0.25 * w, edge), (x + w * 1.25, edge), (x + w / 2, edge - h)],
                colour(*(np.array([40, 92, 54]) * rng.uniform(0.85, 1.15))),
            )
            x += w
    elif place == "beach":
        canvas[edge - int(0.11 * unit) : edge] = np.asarray(colour(44, 138, 190), np.uint8)
        canvas[edge - int(0.02 * unit) : edge] = np.asarray(colour(226, 240, 244), np.uint8)
    elif place == "village":
        centre = rng.uniform(0, 1) * width
        cv2.ellipse(
            canvas, (int(centre), edge), (int(0.7 * unit), int(0.14 * unit)), 0, 180, 360, colour(96, 154, 84), -1
        )
        while x < width:
            w, h = rng.uniform(0.13, 0.18) * unit, rng.uniform(0.06, 0.1) * unit
            fill([(x, edge), (x, edge - h), (x + w, edge - h), (x + w, edge)], colour(232, 218, 192))
            fill([(x - 0.1 * w, edge - h), (x + 1.1 * w, edge - h), (x + w / 2, edge - 1.9 * h)], colour(184, 84, 62))
            x += w + rng.uniform(0.05, 0.25) * unit
    else:
        while x < width:
            w, h = rng.uniform(0.35, 0.6) * unit, rng.uniform(0.15, 0.28) * unit
            fill([(x, edge), (x + w / 2, edge - h), (x + w, edge)], colour(150, 168, 196))
            fill(
                [(x + 0.33 * w, edge - 0.66 * h), (x + w / 2, edge - h), (x + 0.67 * w, edge - 0.66 * h)],
                colour(244, 248, 252),
            )
            x += w * 0.7


def _draw_road(canvas: np.ndarray, place: str, lit: np.ndarray, edge: int, rng: np.random.Generator) -> None:
    """Asphalt towards the horizon (straight or bent) or across the picture, with its middle line."""
    height, width = canvas.shape[:2]
    road = tuple((np.asarray(_ROAD) * lit).tolist())
    paint = tuple((np.asarray((236, 232, 214)) * np.maximum(lit, 0.6)).tolist())

    def fill(points, rgb) -> None:
        cv2.fillPoly(
            canvas, [np.rint(np.asarray(points) * (1 << SUBPIXEL_BITS)).astype(np.int32)], rgb, shift=SUBPIXEL_BITS
        )

    layout = rng.integers(3)
    if layout == 0:  # across
        top = edge + rng.uniform(0.12, 0.3) * (height - edge)
        bottom = min(top + rng.uniform(0.5, 0.62) * (height - edge), height)
        tilt = rng.uniform(-0.05, 0.05) * height
        fill([(0, top), (width, top + tilt), (width, bottom + tilt), (0, bottom)], road)
        middle, half = (top + bottom) / 2, 0.022 * (height - edge)
        dash = 0.13 * np.sqrt(height * width)
        for x in np.arange(-rng.uniform(0, 1) * dash, width, 2 * dash):
            y0, y1 = middle + tilt * x / width, middle + tilt * (x + dash) / width
            fill([(x, y0 - half), (x + dash, y1 - half), (x + dash, y1 + half), (x, y0 + half)], paint)
        return
    bend = rng.uniform(-0.35, 0.35) * width if layout == 2 else 0.0
    vanish, foot = rng.uniform(0.35, 0.65) * width, rng.uniform(0.3, 0.7) * width
    half_foot = rng.uniform(0.3, 0.42) * np.sqrt(height * width)
    depth = np.linspace(0, 1, 9 if layout == 2 else 2)

    def edge_at(t: np.ndarray, offset: float) -> np.ndarray:
        """Points at depth t (0 horizon, 1 foot), `offset` half widths from the middle: [n, 2]."""
        half = half_foot * (0.05 + 0.95 * t)
        x = vanish + (foot - vanish) * t + bend * t * (1 - t) + offset * half
        return np.stack([x, edge + t * (height - edge)], axis=-1)

    fill(np.concatenate([edge_at(depth, -1.0), edge_at(depth, 1.0)[::-1]]), road)
    for near in (0.22, 0.42, 0.68, 1.0):
        t = np.array([near * 0.78, near])
        fill(np.concatenate([edge_at(t, -0.06), edge_at(t, 0.06)[::-1]]), paint)


def draw_weather(image: np.ndarray, time: str, weather: str, seed: int) -> np.ndarray:
    """The final image, uint8 [H, W, 3], with thin weather in front of everything."""
    if weather == "clear":
        return image
    rng = np.random.default_rng([seed, 3])
    height, width = image.shape[:2]
    unit = float(np.sqrt(height * width))
    if weather == "fog":
        haze = np.full((1, 1, 3), _HAZE[time], np.float32)
        return cv2.convertScaleAbs(image * np.float32(0.84) + haze * np.float32(0.16))
    veil = np.zeros((height, width), np.uint8)
    fixed = 1 << SUBPIXEL_BITS
    if weather == "rain":
        starts = rng.uniform(-0.05, 1.0, (36, 2)) * (width, height)
        length = rng.uniform(0.06, 0.1) * unit
        for x, y in starts:
            a, b = (int(x * fixed), int(y * fixed)), (int((x + 0.3 * length) * fixed), int((y + length) * fixed))
            cv2.line(veil, a, b, 105, max(1, round(unit / 128)), cv2.LINE_AA, SUBPIXEL_BITS)
    else:
        for x, y in rng.uniform(0, 1, (46, 2)) * (width, height):
            radius = rng.uniform(0.006, 0.012) * unit
            cv2.circle(veil, (int(x * fixed), int(y * fixed)), int(radius * fixed), 200, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    alpha = veil[..., None].astype(np.float32) / 255
    drops = np.float32(225 if weather == "rain" else 250)
    return cv2.convertScaleAbs(image + (drops - image) * alpha)
