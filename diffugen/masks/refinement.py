"""Better than a threshold: heat spread along self-attention, phrases that compete for pixels, touching objects
separated. Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from diffugen.masks.thresholding import components

WORKING_SIDE = 128
"""sqrt(H * W) of the image that is refined at most: GrabCut at 512x512 costs a hundred milliseconds and more."""

JOIN_GAP, MINOR_HEAT = 0.09, 0.3
"""Gap over sqrt(H * W) that parts of one object may have; and heat over the hottest's below which a part is noise."""

MIN_CORE = 0.1
"""Least share of a part that one of the cores it is split into may have."""


def propagate(heats: np.ndarray, affinity: np.ndarray) -> np.ndarray:
    """Spread heat to where the image attends to itself, as Dataset Diffusion does (Nguyen et al. 2023).

    There the affinity is raised to a matrix power; here its entries are squared, and rows sum to 1 again: that keeps
    each pixel to its nearest kin, where a matrix power of a diffuse affinity smears heat over the whole image.

    Args:
        heats: float32 [n, h, w], not negative.
        affinity: float16 or float32 [h', w', h', w'], entry [y, x] a map of where pixel (y, x) looks.

    Returns:
        float32 [n, h', w']: weighted means of the heat, in its units.
    """
    height, width = affinity.shape[:2]
    if heats.shape[1:] != (height, width):
        heats = np.stack([cv2.resize(heat, (width, height), interpolation=cv2.INTER_AREA) for heat in heats])
    weights = np.square(affinity.reshape(height * width, height * width).astype(np.float32))
    spread = heats.reshape(len(heats), -1) @ weights.T / np.maximum(weights.sum(axis=1), 1e-12)
    return spread.reshape(-1, height, width)


def boundaries(affinity: np.ndarray) -> np.ndarray:
    """Where one object of an image ends and another begins, by TRACE (2026): there neighbours look at different places.

    Args:
        affinity: float16 or float32 [h, w, h, w], entry [y, x] a map of where pixel (y, x) looks.

    Returns:
        float32 [h, w], nats, not negative: the divergence (Jeffreys') between the maps of a pixel's left and right
        neighbours, and of its upper and lower ones; 0 at the rim, where a neighbour is missing.
    """
    size_hw = affinity.shape[:2]
    looks = affinity.reshape(*size_hw, -1).astype(np.float32) + 1e-6
    looks /= looks.sum(axis=2, keepdims=True)
    logs = np.log(looks)
    found = np.zeros(size_hw, np.float32)
    for before, after, middle in (
        (np.s_[:, :-2], np.s_[:, 2:], np.s_[:, 1:-1]),
        (np.s_[:-2], np.s_[2:], np.s_[1:-1]),
    ):
        found[middle] += ((looks[before] - looks[after]) * (logs[before] - logs[after])).sum(axis=2) / 2
    return found


def compete(heats: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Give every pixel that several phrases of one prompt claim to the one that it matters most to.

    That is the phrase whose heat there is highest relative to its mean inside its own mask: the words of a
    prompt differ in how much attention they draw at all, and a strong one must not swallow a weak one.

    Args:
        heats: float [H, W] each.
        masks: bool [H, W] each, aligned with the heats.

    Returns:
        bool [H, W] each, pairwise disjoint; pixels that one phrase alone claims stay its own.
    """
    if not masks:
        return []
    strengths = [
        np.where(mask, heat / max(float(heat[mask].mean()), 1e-12), -1.0) if mask.any() else np.full(heat.shape, -1.0)
        for heat, mask in zip(heats, masks, strict=True)
    ]
    winner = np.argmax(strengths, axis=0)
    return [mask & (winner == index) for index, mask in enumerate(masks)]


def instance_parts(
    claim: np.ndarray, heat: np.ndarray, count: int, min_area_fraction: float, edges: np.ndarray | None = None
) -> np.ndarray:
    """Cut the pixels of one phrase into as many objects as the prompt says, where heat or self-attention separate them.

    Too many components: the parts of an object that lie close together (wheels and body of a car) are joined, and
    parts with little heat are dropped; what then is left over stays, as the model may have drawn more than it was
    asked for. Too few: the hottest component is split.

    Args:
        claim: bool [H, W], all pixels of the phrase.
        heat: float [H, W], its heat.
        count: how often the prompt says the phrase.
        min_area_fraction: components that cover less of the image are noise.
        edges: float [H, W], the `boundaries` of self-attention, where it was kept.

    Returns:
        bool [n, H, W], disjoint, the hottest first.
    """
    parts = _hottest_first(components(claim, min_area_fraction) & claim, heat)
    gap = max(1, round(JOIN_GAP * np.sqrt(claim.size)))
    while len(parts) > count and (pair := _closest_pair(parts, gap)):
        first, second = pair
        parts[first] = parts[first] | parts.pop(second)
    parts = [part for part in parts if heat[part].sum() >= MINOR_HEAT * heat[parts[0]].sum()]
    if 0 < len(parts) < count:
        fields = [heat] if edges is None else [heat, -edges]
        parts[:1] = split_part(parts[0], fields, count - len(parts) + 1)
    return np.array(_hottest_first(parts, heat), bool).reshape(-1, *claim.shape)


def _hottest_first(parts: Iterable[np.ndarray], heat: np.ndarray) -> list[np.ndarray]:
    return sorted(parts, key=lambda part: -heat[part].sum())


def _closest_pair(parts: Sequence[np.ndarray], gap: int) -> tuple[int, int] | None:
    """The coldest part that lies within a gap of a hotter one, and the hottest such."""
    kernel = np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)
    for second in range(len(parts) - 1, 0, -1):
        around = cv2.dilate(parts[second].astype(np.uint8), kernel).astype(bool)
        for first in range(second):
            if (around & parts[first]).any():
                return first, second
    return None


def split_part(part: np.ndarray, fields: Iterable[np.ndarray], count: int) -> list[np.ndarray]:
    """Split touching objects: at the lowest level at which a field has `count` cores, each pixel joins its nearest.
    A part that no field separates stays whole.

    Args:
        part: bool [H, W].
        fields: float [H, W] each, higher inside objects than between them; the first that separates them decides.
        count: number of objects, at least 2.

    Returns:
        bool [H, W] each, disjoint, together the part.
    """
    for field in fields:
        for level in np.quantile(field[part], np.linspace(0.05, 0.9, 18)):
            cores = components(part & (field > level), MIN_CORE * part.sum() / part.size)
            if len(cores) >= count:
                away = [cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 3) for core in cores[:count]]
                nearest = np.argmin(away, axis=0)
                return [part & (nearest == index) for index in range(count)]
    return [part]


def resolve_overlaps(cuts: np.ndarray, seeds: np.ndarray, heats: np.ndarray) -> np.ndarray:
    """Give every pixel that several cuts claim to the one whose seed has it, else to the one it is hottest for.

    Args:
        cuts: bool [n, H, W], the parts after GrabCut.
        seeds: bool [n, H, W], the parts before GrabCut, disjoint.
        heats: float [n, H, W], the heat of each part's phrase.

    Returns:
        bool [n, H, W], disjoint.
    """
    if not len(cuts):
        return cuts
    means = np.array([heat[seed].mean() for heat, seed in zip(heats, seeds, strict=True)]).reshape(-1, 1, 1)
    strengths = heats / np.maximum(means, 1e-12)
    claims = np.where(cuts, np.where(seeds, np.inf, strengths), -1.0)
    return cuts & (np.argmax(claims, axis=0) == np.arange(len(cuts)).reshape(-1, 1, 1))


def at_most_hw(size_hw: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width, shrunk to `side` squared pixels where they have more."""
    scale = side / np.sqrt(size_hw[0] * size_hw[1])
    return size_hw if scale >= 1 else (max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale)))


def at_most(image: np.ndarray, side: int) -> np.ndarray:
    """The image, shrunk to `side` squared pixels where it has more."""
    height, width = at_most_hw(image.shape[:2], side)
    return (
        image
        if (height, width) == image.shape[:2]
        else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    )


def resize_masks(masks: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bool masks [n, h, w] at another size [n, H, W], their edges smooth."""
    if masks.shape[1:] == size_hw:
        return masks
    how = cv2.INTER_AREA if size_hw[0] < masks.shape[1] else cv2.INTER_CUBIC
    sized = [cv2.resize(mask.astype(np.float32), size_hw[::-1], interpolation=how) > 0.5 for mask in masks]
    return np.array(sized, bool).reshape(-1, *size_hw)
