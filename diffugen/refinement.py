"""Better than a threshold: heat spread along self-attention, phrases that compete for pixels, masks that end where
the image has its edges, touching objects told apart. Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from diffugen.instances import box_of

GRABCUT_MARGIN, GRABCUT_MIN_IOU = 0.05, 0.4
"""Width of the band that GrabCut decides about, over sqrt(H * W); and how much of the start it must keep."""


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
    margin = max(1, round(GRABCUT_MARGIN * np.sqrt(component.size)))
    window = _window(component, 3 * margin)
    start = component[window].astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    core, reach = cv2.erode(start, kernel), cv2.dilate(start, kernel)
    if not start.any() or reach.all():
        return component
    labels = np.where(reach > 0, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[start > 0] = cv2.GC_PR_FGD
    labels[core > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its colour clusters start at random
    cv2.grabCut(
        np.ascontiguousarray(image[window]), labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)),
        num_iterations, cv2.GC_INIT_WITH_MASK,
    )  # fmt: skip
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    contours, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(found, contours, -1, 1, cv2.FILLED)
    if (found & start).sum() < GRABCUT_MIN_IOU * (found | start).sum():
        return component
    refined = np.zeros_like(component)
    refined[window] = found.astype(bool)
    return refined


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The mask's box with a margin, as far as the image goes."""
    left, top, right, bottom = (int(side) for side in box_of(mask))
    return slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)
