"""Better than a threshold: heat spread along self-attention, phrases that compete for pixels, masks that end where
the image has its edges, touching objects told apart. Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from diffugen.instances import box_of
from diffugen.thresholding import components

WORKING_SIDE = 128
"""sqrt(H * W) of the image that is refined at most: GrabCut at 512x512 costs a hundred milliseconds and more."""

GRABCUT_INWARD, GRABCUT_OUTWARD, GRABCUT_MIN_IOU = 0.065, 0.05, 0.4
"""Widths of the band that GrabCut decides about, within the start and around it, over sqrt(H * W); and how much of the
start it must keep."""

AGREED_DEPTH, AGREED_OUTWARD = 0.5, 0.03
"""Share of its largest depth below which what all agree on is not certain; and the margin around what anyone holds,
over sqrt(H * W)."""

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


def instance_parts(claim: np.ndarray, heat: np.ndarray, count: int, min_area_fraction: float) -> np.ndarray:
    """Cut the pixels of one phrase into as many objects as the prompt says, where the heat lets them be told apart.

    Too many components: the parts of an object that lie close together (wheels and body of a car) are joined, and
    parts with little heat are dropped; what then is left over stays, as the model may have drawn more than it was
    asked for. Too few: the hottest component is split.

    Args:
        claim: bool [H, W], all pixels of the phrase.
        heat: float [H, W], its heat.
        count: how often the prompt says the phrase.
        min_area_fraction: components that cover less of the image are noise.

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
        parts[:1] = split_part(parts[0], heat, count - len(parts) + 1)
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


def split_part(part: np.ndarray, heat: np.ndarray, count: int) -> list[np.ndarray]:
    """Split touching objects: at the lowest level of heat at which `count` cores stand apart, each pixel joins its
    nearest core. A part that never falls apart stays whole.

    Args:
        part: bool [H, W].
        heat: float [H, W].
        count: number of objects, at least 2.

    Returns:
        bool [H, W] each, disjoint, together the part.
    """
    for level in np.quantile(heat[part], np.linspace(0.05, 0.9, 18)):
        cores = components(part & (heat > level), MIN_CORE * part.sum() / part.size)
        if len(cores) >= count:
            away = [cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 3) for core in cores[:count]]
            nearest = np.argmin(away, axis=0)
            return [part & (nearest == index) for index in range(count)]
    return [part]


def settle(cuts: np.ndarray, starts: np.ndarray, heats: np.ndarray) -> np.ndarray:
    """Give every pixel that several cuts want to the one that started there, else to the one it is hottest for.

    Args:
        cuts: bool [n, H, W], the parts after GrabCut.
        starts: bool [n, H, W], the parts before, disjoint.
        heats: float [n, H, W], the heat of each part's phrase.

    Returns:
        bool [n, H, W], disjoint.
    """
    if not len(cuts):
        return cuts
    means = np.array([heat[start].mean() for heat, start in zip(heats, starts, strict=True)]).reshape(-1, 1, 1)
    strengths = heats / np.maximum(means, 1e-12)
    wishes = np.where(cuts, np.where(starts, np.inf, strengths), -1.0)
    return cuts & (np.argmax(wishes, axis=0) == np.arange(len(cuts)).reshape(-1, 1, 1))


def grabcut(image: np.ndarray, component: np.ndarray, num_iterations: int = 1) -> np.ndarray:
    """Move a component's edge to the image's own edges: GrabCut (Rother et al. 2004) started from the component.

    Its core is certain, so is everything beyond a margin; colour and edges decide about the band between, within a
    window around the component. Holes are filled. The result is kept only where it is still about the same object
    (IoU with the start of at least 0.4).

    Args:
        image: uint8 RGB [H, W, 3].
        component: bool [H, W].
        num_iterations: of fitting colours and cutting.

    Returns:
        bool [H, W].
    """
    inward, outward = (max(1, round(share * np.sqrt(component.size))) for share in (GRABCUT_INWARD, GRABCUT_OUTWARD))
    window = _window(component, 3 * outward)
    start = component[window].astype(np.uint8)
    core, reach = cv2.erode(start, _disc(inward)), cv2.dilate(start, _disc(outward))
    if not start.any() or reach.all():
        return component
    found = _cut(image[window], core, start, reach, num_iterations)
    if (found & start).sum() < GRABCUT_MIN_IOU * (found | start).sum():
        return component
    refined = np.zeros_like(component)
    refined[window] = found.astype(bool)
    return refined


def agreed_cut(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """One mask of several views of the same object, better than each where they err in different places.

    What all masks hold is the object's, down to half of its depth for certain; what none holds, with a narrow margin,
    is not; between the two GrabCut (Rother et al. 2004) decides by colour and edges, started from what at least half of
    the masks hold. Holes are filled.

    Args:
        image: uint8 RGB [H, W, 3].
        masks: bool [n, H, W], one per view.

    Returns:
        bool [H, W]; what at least half of them hold where the masks have no pixel in common, or where the cut is
        something else.
    """
    agreed, claimed = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
    majority = masks.mean(axis=0) >= 0.5
    if not agreed.any():
        return majority
    margin = max(1, round(AGREED_OUTWARD * np.sqrt(agreed.size)))
    window = _window(claimed, 3 * margin)
    reach = cv2.dilate(claimed[window].astype(np.uint8), _disc(margin))
    if reach.all():
        return majority
    inside = np.pad(agreed[window].astype(np.uint8), 1)  # beyond the image nothing is certain
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    core = (depth > AGREED_DEPTH * depth.max()).astype(np.uint8)
    start = majority[window].astype(np.uint8)
    found = _cut(image[window], core, start, reach, 1)
    if (found & start).sum() < GRABCUT_MIN_IOU * (found | start).sum():  # colour cannot tell the object
        return majority
    cut = np.zeros_like(majority)
    cut[window] = found.astype(bool)
    return cut


def _cut(image: np.ndarray, core: np.ndarray, start: np.ndarray, reach: np.ndarray, num_iterations: int) -> np.ndarray:
    """GrabCut with a certain core, a likely start and nothing beyond reach; all uint8 [h, w], holes filled."""
    labels = np.where(reach > 0, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[start > 0] = cv2.GC_PR_FGD
    labels[core > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its colour clusters start at random
    cv2.grabCut(
        np.ascontiguousarray(image), labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)),
        num_iterations, cv2.GC_INIT_WITH_MASK,
    )  # fmt: skip
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    contours, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(found, contours, -1, 1, cv2.FILLED)
    return found


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The mask's box with a margin, as far as the image goes."""
    left, top, right, bottom = (int(side) for side in box_of(mask))
    return slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)


def at_most(image: np.ndarray, side: int) -> np.ndarray:
    """The image, shrunk to `side` squared pixels where it has more."""
    height, width = image.shape[:2]
    scale = side / np.sqrt(height * width)
    if scale >= 1:
        return image
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def resize_masks(masks: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bool masks [n, h, w] at another size [n, H, W], their edges smooth."""
    if masks.shape[1:] == size_hw:
        return masks
    how = cv2.INTER_AREA if size_hw[0] < masks.shape[1] else cv2.INTER_CUBIC
    sized = [cv2.resize(mask.astype(np.float32), size_hw[::-1], interpolation=how) > 0.5 for mask in masks]
    return np.array(sized, bool).reshape(-1, *size_hw)
