"""From a heatmap to the masks of objects, and how far to believe them. Pure functions on arrays.

The steps are DiffuGen's (Shenoda and Kim, 2023): 8 bits, Otsu's threshold, erosion and dilation, contours.
The score is our own: theirs is about 1 for any blob, noise included. Heat is never stretched to its own
range, so a map without an object stays recognisable as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from diffugen.instances import box_of

UNIFORM_ATTENTION = 1 / 77
"""What a token gets where attention does not care about the text: an even share of CLIP's 77 tokens."""

RING_FRACTION = 0.06
"""Reach of an object's surroundings over sqrt(H * W); attention's soft edge is left out of them."""

NOISE_SEPARATION, CLEAR_SEPARATION = 0.25, 0.9
"""Share of a map's variance that a component explains: of the speckles of noise, and of a crisp object."""

GRABCUT_MARGIN, GRABCUT_MIN_IOU = 0.05, 0.4
"""Width of the band that GrabCut decides about, over sqrt(H * W); and how much of the start it must keep."""

PLAUSIBLE_AREA = ((0.0, 0.01, 0.5, 0.9), (0.0, 1.0, 1.0, 0.0))
"""Area fractions of the image and how plausible an object of that size is, linear in between."""


def upsample(values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bring a heatmap [h, w] to the image's height and width: float32 [H, W], bicubic, never negative."""
    height, width = size_hw
    resized = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.maximum(resized, 0)


def otsu_mask(heat: np.ndarray) -> np.ndarray:
    """The hot part of a heatmap by Otsu's threshold (Otsu 1979) on 256 levels from zero to the map's maximum.

    Args:
        heat: float [H, W], not negative.

    Returns:
        bool [H, W]; all False if the map is flat, within 1/255 of its maximum, or zero.
    """
    peak = heat.max(initial=0)
    if peak <= 0:
        return np.zeros(heat.shape, bool)
    levels = np.rint(heat / peak * 255).astype(np.uint8)
    if levels.min() >= 254:
        return np.zeros(heat.shape, bool)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return levels > threshold


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


def clean_mask(mask: np.ndarray, erode_fraction: float = 10 / 512, dilate_fraction: float = 7 / 512) -> np.ndarray:
    """Remove speckles by erosion, then grow what is left.

    Args:
        mask: bool [H, W].
        erode_fraction: how many pixels go, over sqrt(H * W); upstream's 10 passes of 3x3 at 512x512 by
            default.
        dilate_fraction: how many come back; upstream's 7 passes.
    """
    side = np.sqrt(mask.size)
    kernel = np.ones((3, 3), np.uint8)
    eroded = cv2.erode(mask.astype(np.uint8), kernel, iterations=round(erode_fraction * side))
    return cv2.dilate(eroded, kernel, iterations=round(dilate_fraction * side)).astype(bool)


def components(mask: np.ndarray, min_area_fraction: float = 0.005) -> np.ndarray:
    """The separate parts of a mask, by their outer contours (CHAIN_APPROX_SIMPLE), holes filled.

    Args:
        mask: bool [H, W].
        min_area_fraction: parts that cover less of the image than this are left out.

    Returns:
        bool [n, H, W], the largest first.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [cv2.drawContours(np.zeros(mask.shape, np.uint8), [contour], 0, 1, cv2.FILLED) for contour in contours]
    kept = [part.astype(bool) for part in parts if part.sum() >= max(1, min_area_fraction * mask.size)]
    kept.sort(key=lambda part: -part.sum())
    return np.array(kept, bool).reshape(-1, *mask.shape)


def grabcut(image: np.ndarray, component: np.ndarray, num_iterations: int = 2) -> np.ndarray:
    """Move a component's edge to the image's own edges: GrabCut (Rother et al. 2004) started from the component.

    Its core is certain, so is everything beyond a margin; what lies between is decided by colour and edges. The
    result is kept only where it is still about the same object (IoU with the start of at least 0.4).

    Args:
        image: uint8 RGB [H, W, 3].
        component: bool [H, W].

    Returns:
        bool [H, W].
    """
    margin = max(1, round(GRABCUT_MARGIN * np.sqrt(component.size)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    start = component.astype(np.uint8)
    core, reach = cv2.erode(start, kernel), cv2.dilate(start, kernel)
    labels = np.where(reach > 0, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[component] = cv2.GC_PR_FGD
    labels[core > 0] = cv2.GC_FGD
    if not component.any() or reach.all():
        return component
    cv2.setRNGSeed(0)  # its colour clusters start at random
    cv2.grabCut(
        image, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), num_iterations, cv2.GC_INIT_WITH_MASK
    )
    refined = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    overlap = (refined & component).sum() / max(1, (refined | component).sum())
    return refined if overlap >= GRABCUT_MIN_IOU else component


def score_component(heat: np.ndarray, component: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """How much a component of a heatmap looks like an object rather than noise, in [0, 1].

    The geometric mean of contrast and separation, times how plausible the size is:
    - contrast, (inside - ring) / (inside + ring + `UNIFORM_ATTENTION`), compares the heat with its
      surroundings in absolute units: near 0 on a map that hardly varies, or where the phrase draws less than
      an even share;
    - separation is Otsu's criterion, the share of the map's variance that this one component explains: low
      where the rest of the map has as much heat elsewhere, as noise does.

    Args:
        heat: float [H, W], absolute attention.
        component: bool [H, W].
        ignore: bool [H, W], pixels that may be hot as well, such as another instance of a phrase that is said
            twice.
    """
    outside = ~component if ignore is None else ~component & ~ignore
    if not component.any() or not outside.any():
        return 0.0
    inside = float(heat[component].mean())
    ring = _ring(component) & outside
    around = float(heat[ring if ring.any() else outside].mean())
    contrast = max(0.0, inside - around) / (inside + around + UNIFORM_ATTENTION)
    separation = np.interp(_explained_variance(heat, component, outside), (NOISE_SEPARATION, CLEAR_SEPARATION), (0, 1))
    plausibility = np.interp(component.mean(), *PLAUSIBLE_AREA)
    return float(np.sqrt(contrast * separation) * plausibility)


def _explained_variance(heat: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """Between-class over total variance of two sets of pixels."""
    together = heat[inside | outside]
    variance = float(together.var())
    if variance <= 0:
        return 0.0
    share = float(inside.sum() / together.size)
    return share * (1 - share) * float(heat[inside].mean() - heat[outside].mean()) ** 2 / variance


def _ring(component: np.ndarray) -> np.ndarray:
    """The surroundings of a component, a little away from its edge: bool [H, W]."""
    reach = max(2, round(RING_FRACTION * np.sqrt(component.size)))
    left, top, right, bottom = (int(side) for side in box_of(component))
    margin = 2 * reach  # only this window can change
    window = np.s_[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]
    part = component[window].astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    near, far = (cv2.dilate(part, kernel, iterations=distance).astype(bool) for distance in (reach // 2, margin))
    ring = np.zeros(component.shape, bool)
    ring[window] = far & ~near
    return ring
