"""Masks that end where the image has its edges: GrabCut (Rother et al. 2004) started from a mask, or from several views
of one object. Pure functions on arrays.
"""

from __future__ import annotations

import cv2
import numpy as np

from diffugen.instances import box_of

INWARD, OUTWARD = 0.065, 0.05
"""Widths of the band that `grabcut` decides about, within the start and around it, over sqrt(H * W)."""

AGREED_DEPTH, AGREED_OUTWARD = 0.75, 0.03
"""Share of its largest depth below which what all agree on is not certain; and the margin around what anyone holds,
over sqrt(H * W)."""

AGREED_ENLARGEMENT = 4
"""See `_cut`. Such a cut takes a tenth of a second; where several views are there, they have taken longer."""

MIN_EVIDENCE = 9.0
"""Nats by which the colours of a cut's two sides must differ where it had to decide, on the mean. Scenes of
the toy world have about 15, photos of COCO 6."""

MIN_EVIDENCE_SHRUNK = 15.0
"""The same in images that are shrunk first, where a cut loses fine edges that the views have. In photos of COCO cuts
lose to masks without a cut at every bar that one object reaches, see docs/rounds.md and docs/labels.md."""

MIN_PIXELS = 300
"""Colour models of fewer pixels fit by chance."""

MIN_IOU = 0.4
"""How much of the start a cut must keep."""

_MAX_NATS = 20.0
_COMPONENTS = 5  # of the colours of either side, in OpenCV


def grabcut(
    image: np.ndarray, component: np.ndarray, *, enlargement: int = 1, min_evidence: float = 0.0
) -> np.ndarray | None:
    """Move a component's edge to the image's own edges.

    Its core is certain, so is everything beyond a margin; colour and edges decide about the band between, within a
    window around the component. Holes are filled.

    Args:
        image: uint8 RGB [H, W, 3].
        component: bool [H, W].
        enlargement: above 1 thin parts survive, in the time of its square.
        min_evidence: nats by which the colours of both sides must differ.

    Returns:
        bool [H, W]; None where colour cannot tell object from background, or the cut is something else (IoU with the
        component below 0.4).
    """
    inward, outward = (max(1, round(share * np.sqrt(component.size))) for share in (INWARD, OUTWARD))
    window = _window(component, 3 * outward)
    start = component[window].astype(np.uint8)
    core, reach = cv2.erode(start, _disc(inward)), cv2.dilate(start, _disc(outward))
    if not start.any() or reach.all():
        return None
    found = _cut(image[window], core, start, reach, enlargement)
    if not _same_object(found, start) or _evidence(image[window], found, (reach > 0) & (core == 0)) < min_evidence:
        return None
    return _in_place(found, window, component)


def clear_cut(image: np.ndarray, masks: np.ndarray, min_evidence: float = MIN_EVIDENCE) -> np.ndarray | None:
    """One mask of several views of the same object, better than each where they err in different places.

    What all masks hold is the object's, down to three quarters of its depth for certain; what none holds, with a
    narrow margin, is not; between the two GrabCut decides by colour and edges, started from what the majority of the
    masks holds. Holes are filled.

    Args:
        image: uint8 RGB [H, W, 3].
        masks: bool [n, H, W], one per view; ties are the first one's to decide.
        min_evidence: nats by which the colours of both sides must differ.

    Returns:
        bool [H, W]; None where the masks have no pixel in common, where colour cannot tell object from background or
        the object is too small for that, or where the cut is something else.
    """
    agreed, claimed = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
    share = masks.mean(axis=0)
    majority = (share > 0.5) | ((share == 0.5) & masks[0])
    if not agreed.any():
        return None
    margin = max(1, round(AGREED_OUTWARD * np.sqrt(agreed.size)))
    window = _window(claimed, 3 * margin)
    reach = cv2.dilate(claimed[window].astype(np.uint8), _disc(margin))
    if reach.all():
        return None
    inside = np.pad(agreed[window].astype(np.uint8), 1)  # beyond the image nothing is certain
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    core = (depth > AGREED_DEPTH * depth.max()).astype(np.uint8)
    start = majority[window].astype(np.uint8)
    found = _cut(image[window], core, start, reach, AGREED_ENLARGEMENT)
    if not _same_object(found, start) or _evidence(image[window], found, (reach > 0) & (core == 0)) < min_evidence:
        return None
    return _in_place(found, window, majority)


def _cut(image: np.ndarray, core: np.ndarray, start: np.ndarray, reach: np.ndarray, enlargement: int) -> np.ndarray:
    """GrabCut with a certain core, a likely start and nothing beyond reach; all uint8 [h, w], holes filled.

    Each pixel is cut as a block of `enlargement` times as many a side: its colour then weighs that much more beside its
    edges, whose price would make thin parts too dear.
    """
    labels = np.where(reach > 0, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[start > 0] = cv2.GC_PR_FGD
    labels[core > 0] = cv2.GC_FGD
    blocks = _enlarged(labels, enlargement)
    _grabcut_once(_enlarged(image, enlargement), blocks)
    inside = (blocks & 1).reshape(len(labels), enlargement, -1, enlargement)  # OpenCV's foreground labels are odd
    found = (inside.mean(axis=(1, 3)) > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(found, contours, -1, 1, cv2.FILLED)
    return found


def _grabcut_once(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One iteration of fitting colours to the labels and cutting, which changes them; the models of back- and
    foreground."""
    background, foreground = np.zeros((1, 13 * _COMPONENTS)), np.zeros((1, 13 * _COMPONENTS))
    cv2.setRNGSeed(0)  # the colours' clusters start at random
    cv2.grabCut(image, labels, (0, 0, 0, 0), background, foreground, 1, cv2.GC_INIT_WITH_MASK)
    return background[0], foreground[0]


def _evidence(image: np.ndarray, found: np.ndarray, undecided: np.ndarray) -> float:
    """By how many nats the colours of both sides of a cut differ in undecided pixels, on the mean; 0 where a
    side has too few pixels to say."""
    if not undecided.any() or min(found.sum(), (found == 0).sum()) < MIN_PIXELS:
        return 0.0
    labels = np.where(found > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    background, foreground = _grabcut_once(np.ascontiguousarray(image), labels)
    pixels = image[undecided]
    nats = np.abs(_log_likelihood(foreground, pixels) - _log_likelihood(background, pixels))
    return float(np.minimum(nats, _MAX_NATS).mean())


def _log_likelihood(model: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Of pixels uint8 [n, 3] under a colour model as OpenCV lays it out: weights, means, covariances; float64 [n]."""
    weights, means, covariances = np.split(model, [_COMPONENTS, 4 * _COMPONENTS])
    total = np.full(len(pixels), -np.inf)
    for weight, mean, covariance in zip(
        weights, means.reshape(-1, 3), covariances.reshape(-1, 3, 3) + 0.01 * np.eye(3), strict=True
    ):
        if weight > 0:
            away = pixels - mean
            distance = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
            total = np.logaddexp(total, np.log(weight) - (np.linalg.slogdet(covariance)[1] + distance) / 2)
    return total


def _same_object(found: np.ndarray, start: np.ndarray) -> bool:
    return bool((found & start).sum() >= MIN_IOU * (found | start).sum())


def _in_place(found: np.ndarray, window: tuple[slice, slice], like: np.ndarray) -> np.ndarray:
    whole = np.zeros_like(like)
    whole[window] = found.astype(bool)
    return whole


def _enlarged(array: np.ndarray, factor: int) -> np.ndarray:
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _window(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The mask's box with a margin, as far as the image goes."""
    left, top, right, bottom = (int(side) for side in box_of(mask))
    return slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)
