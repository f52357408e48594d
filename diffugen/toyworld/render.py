"""From a scene to its picture and the exact mask of every object."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from diffugen.toyworld.backdrop import draw_backdrop, draw_weather, horizon_of, light
from diffugen.toyworld.palette import COLOURS, jittered, tone_rgb
from diffugen.toyworld.scene import Scene, SceneObject, instance_parts
from diffugen.toyworld.shapes import Part, bounds, paint, silhouette_mask, to_pixels

SUPERSAMPLING = 3  # odd: of 9 samples per pixel one object or none has the majority, so masks are disjoint
MAX_HIDDEN = 0.4
_MARGIN = 0.06  # placements are checked on a coarse grid, so they keep this distance from MAX_HIDDEN
_GRID = 56  # mean side of that grid, in cells


@dataclass(frozen=True)
class Placed:
    """An object's parts and where they stand: lengths in mean image sides sqrt(H*W), foot_xy from the top left."""

    parts: tuple[Part, ...]
    scale: float
    foot_xy: tuple[float, float]


@dataclass(frozen=True)
class Rendered:
    """image uint8 [H, W, 3] RGB; masks bool [n, H, W], disjoint, aligned with scene.objects."""

    image: np.ndarray
    masks: np.ndarray
    scene: Scene

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image is {self.image.dtype} {self.image.shape}; it must be uint8 [H, W, 3]")
        expected = (len(self.scene.objects), *self.image.shape[:2])
        if self.masks.shape != expected or self.masks.dtype != bool:
            raise ValueError(f"masks are {self.masks.dtype} {self.masks.shape}; they must be bool {expected}")


def render(scene: Scene, size_hw: tuple[int, int] = (128, 128)) -> Rendered:
    """Draw a scene at any size of at least 32 pixels a side; shapes keep their proportions."""
    _check_size(size_hw)
    fine_hw = (size_hw[0] * SUPERSAMPLING, size_hw[1] * SUPERSAMPLING)
    canvas = draw_backdrop(scene.place, scene.time, scene.weather, scene.seed, fine_hw)
    placed = lay_out(scene, size_hw)
    owner = np.zeros(fine_hw, np.uint8)  # 0 nothing, i + 1 object i
    for i in _far_to_near(placed):
        _draw_shadow(canvas, placed[i])
    for i in _far_to_near(placed):
        _draw_object(canvas, owner, placed[i], scene.objects[i], scene.time, i + 1)
    image = cv2.resize(canvas, size_hw[::-1], interpolation=cv2.INTER_AREA)
    covers = [_cover(owner, i + 1) for i in range(len(placed))]
    for cover in covers:
        _shade(image, cover)
    image = draw_weather(image, scene.time, scene.weather, scene.seed)
    return Rendered(image=image, masks=np.stack([cover >= 126 for cover in covers]), scene=scene)


def unoccluded_masks(scene: Scene, size_hw: tuple[int, int] = (128, 128)) -> np.ndarray:
    """Each object's mask as if the others were not there: bool [n, H, W], aligned with scene.objects."""
    _check_size(size_hw)
    fine_hw = (size_hw[0] * SUPERSAMPLING, size_hw[1] * SUPERSAMPLING)
    masks = []
    for thing, what in zip(lay_out(scene, size_hw), scene.objects, strict=True):
        canvas, owner = np.zeros((*fine_hw, 3), np.uint8), np.zeros(fine_hw, np.uint8)
        _draw_object(canvas, owner, thing, what, scene.time, 1)
        masks.append(_cover(owner, 1) >= 126)
    return np.stack(masks)


def _check_size(size_hw: tuple[int, int]) -> None:
    if min(size_hw) < 32 or max(size_hw) > 3 * min(size_hw):
        raise ValueError(f"size_hw={size_hw} is out of range; use sides >= 32 with an aspect of at most 3")


def _cover(owner: np.ndarray, label: int) -> np.ndarray:
    """The share of each pixel that an object owns: uint8 [H, W], 28 per sample, so 0 to 252."""
    height, width = owner.shape
    size_wh = (width // SUPERSAMPLING, height // SUPERSAMPLING)
    return cv2.resize((owner == label).view(np.uint8) * 252, size_wh, interpolation=cv2.INTER_AREA)


def lay_out(scene: Scene, size_hw: tuple[int, int]) -> list[Placed]:
    """Where each object stands: inside the image, at most MAX_HIDDEN of it behind others; aligned with objects.

    Tries random places, smaller objects little by little, until a coarse drawing meets the limits.
    """
    rng = np.random.default_rng([scene.seed, 4])
    horizon = horizon_of(scene.seed)
    height, width = size_hw
    unit = float(np.sqrt(height * width))
    extent_wh = (width / unit, height / unit)
    shapes = [instance_parts(thing.kind, thing.seed) for thing in scene.objects]
    fills = [_fill_share(parts) for parts in shapes]
    best, best_hidden = [], 2.0
    for attempt in range(60):
        shrink = 0.985**attempt
        placed = [
            _place(rng, parts, fill, max(thing.area * shrink, 0.03), extent_wh, horizon)
            for parts, fill, thing in zip(shapes, fills, scene.objects, strict=True)
        ]
        hidden = max(hidden_shares(placed, size_hw))
        if hidden < best_hidden:
            best, best_hidden = placed, hidden
        if best_hidden <= MAX_HIDDEN - _MARGIN:
            break
    return best


def _place(rng, parts: list[Part], fill: float, area: float, extent_wh, horizon: float) -> Placed:
    """A random place for one object; it is shrunk where it would not fit into the image."""
    left, _, right, top = bounds(parts)
    room = 0.03
    scale = min(np.sqrt(area / fill), (extent_wh[0] - 2 * room) / (right - left), (extent_wh[1] * 0.86) / top)
    lowest = extent_wh[1] * 0.965
    # Its head stays inside the image, its foot on the ground; bigger ones stand nearer.
    highest = max(extent_wh[1] * (horizon + 0.1 + 0.9 * area), top * scale + room)
    foot_y = rng.uniform(min(highest, lowest), lowest)
    half = (right - left) / 2 * scale + room
    foot_x = rng.uniform(half, extent_wh[0] - half)
    return Placed(tuple(parts), float(scale), (float(foot_x), float(foot_y)))


def _fill_share(parts: list[Part]) -> float:
    """The silhouette's area where the bounding box's is 1."""
    left, _, right, top = bounds(parts)
    cells = 40
    size_hw = (int(top * cells) + 2, int((right - left) * cells) + 2)
    return float(silhouette_mask(parts, size_hw, cells, (size_hw[1] / 2, size_hw[0] - 1)).sum()) / cells**2


def hidden_shares(placed: list[Placed], size_hw: tuple[int, int]) -> list[float]:
    """The share of each object that nearer ones hide, on a coarse grid."""
    if len(placed) == 1:
        return [0.0]
    cell = np.sqrt(size_hw[0] * size_hw[1]) / _GRID
    grid_hw = (int(np.ceil(size_hw[0] / cell)), int(np.ceil(size_hw[1] / cell)))
    masks = [full_mask(thing, grid_hw, _GRID).view(bool) for thing in placed]
    shares, taken = [0.0] * len(placed), np.zeros(grid_hw, bool)
    for i in reversed(_far_to_near(placed)):
        shares[i] = float((masks[i] & taken).sum() / masks[i].sum())
        taken |= masks[i]
    return shares


def full_mask(placed: Placed, size_hw: tuple[int, int], unit: float) -> np.ndarray:
    """An object's silhouette as if nothing hid it, uint8 [H, W]; unit is the mean image side in pixels."""
    foot = (placed.foot_xy[0] * unit, placed.foot_xy[1] * unit)
    return silhouette_mask(placed.parts, size_hw, placed.scale * unit, foot)


def _far_to_near(placed: list[Placed]) -> list[int]:
    return sorted(range(len(placed)), key=lambda i: placed[i].foot_xy[1])


def _draw_shadow(canvas: np.ndarray, thing: Placed) -> None:
    """Darken an ellipse of ground under an object."""
    unit = float(np.sqrt(canvas.shape[0] * canvas.shape[1]))
    left, _, right, _ = bounds(thing.parts)
    radius_x, radius_y = 0.54 * (right - left) * thing.scale * unit, 0.022 * unit
    x, y = thing.foot_xy[0] * unit, thing.foot_xy[1] * unit
    y0, y1 = max(int(y - 2 * radius_y), 0), min(int(y + 2 * radius_y), canvas.shape[0])
    strip = canvas[y0:y1]
    dark = np.zeros(strip.shape[:2], np.uint8)
    cv2.ellipse(dark, (int(x), int(y - y0)), (int(radius_x), int(radius_y)), 0, 0, 360, 1, -1)
    strip[dark.view(bool)] = (strip[dark.view(bool)] * 0.62).astype(np.uint8)


def _draw_object(
    canvas: np.ndarray, owner: np.ndarray, thing: Placed, what: SceneObject, time: str, label: int
) -> None:
    """Paint the parts in order on the picture and on the map of owners."""
    rng = np.random.default_rng([what.seed, 12])
    main = jittered(what.colour, rng)
    others = [name for name in COLOURS if name != what.colour]
    second = jittered(others[int(rng.integers(len(others)))], rng)
    # Objects keep more light than the ground, so that their colours can be named at night.
    lit = 1 - (1 - light(time)) * (0.4 if time == "night" else 0.3)
    unit = float(np.sqrt(canvas.shape[0] * canvas.shape[1]))
    foot = (thing.foot_xy[0] * unit, thing.foot_xy[1] * unit)
    line = max(1, round(unit / 128))
    for part in thing.parts:
        points = to_pixels(part.points, thing.scale * unit, foot)
        rgb = tone_rgb(part.tone, main, second) * lit
        outline = None if part.tone == "inner" else _outline(rgb)
        paint(canvas, points, tuple(rgb.tolist()), outline, line)
        paint(owner, points, label, label, line)


def _outline(rgb: np.ndarray) -> tuple[float, ...]:
    """Darker than its fill, or lighter where the fill is nearly black."""
    return tuple((rgb * 0.55 if rgb.max() > 70 else rgb + 34).tolist())


def _shade(image: np.ndarray, cover: np.ndarray) -> None:
    """Darken an object towards its foot, in place; cover is its share of each pixel, uint8 0 to 252."""
    rows = np.flatnonzero(cover.any(axis=1))
    if not len(rows):
        return
    top, bottom = rows[0], rows[-1] + 1
    fall = np.linspace(0, 0.22, bottom - top, dtype=np.float32)[:, None] / 252
    keep = 1 - fall * cover[top:bottom]
    image[top:bottom] = cv2.convertScaleAbs(image[top:bottom] * keep[..., None])


def silhouette(kind: str, size: int = 64, seed: int = 0) -> np.ndarray:
    """One object alone, filling the frame: bool [size, size]."""
    parts = instance_parts(kind, seed)
    left, _, right, top = bounds(parts)
    scale = 0.94 * size / max(right - left, top)
    foot = (size / 2, size / 2 + top * scale / 2)
    return silhouette_mask(parts, (size, size), scale, foot).view(bool)
