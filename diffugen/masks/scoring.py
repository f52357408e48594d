"""How far to believe a mask: the paper's own score is about 1 for any blob, noise included."""

from __future__ import annotations

import cv2
import numpy as np

from diffugen.instances import box_of

UNIFORM_ATTENTION = 1 / 77
"""What a token gets where attention does not care about the text: an even share of CLIP's 77 tokens."""

RING_FRACTION = 0.06
"""Reach of an object's surroundings over sqrt(H * W); attention's soft edge is left out of them."""

NOISE_SEPARATION, CLEAR_SEPARATION = 0.25, 0.9
"""Share of a map's variance that a component explains: of the speckles of noise, and of a crisp object."""

PLAUSIBLE_AREA = ((0.0, 0.01, 0.5, 0.9), (0.0, 1.0, 1.0, 0.0))
"""Area fractions of the image and how plausible an object of that size is, linear in between."""


def score_component(
    heat: np.ndarray, component: np.ndarray, ignore: np.ndarray | None = None, uniform: float = UNIFORM_ATTENTION
) -> float:
    """How much a component of a heatmap looks like an object rather than noise, in [0, 1].

    The geometric mean of contrast and separation, times how plausible the size is:
    - contrast, (inside - ring) / (inside + ring + `uniform`), compares the heat with its
      surroundings in absolute units: near 0 on a map that hardly varies, or where the phrase draws less than
      an even share;
    - separation is Otsu's criterion, the share of the map's variance that this one component explains: low
      where the rest of the map has as much heat elsewhere, as noise does.

    Args:
        heat: float [H, W], absolute attention.
        component: bool [H, W].
        ignore: bool [H, W], pixels that may be hot as well, such as another instance of a phrase that is said
            twice.
        uniform: what a token gets where attention does not care about the text: an even share.
    """
    outside = ~component if ignore is None else ~component & ~ignore
    if not component.any() or not outside.any():
        return 0.0
    inside = float(heat[component].mean())
    ring = _ring(component) & outside
    around = float(heat[ring if ring.any() else outside].mean())
    contrast = max(0.0, inside - around) / (inside + around + uniform)
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
