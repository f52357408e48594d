"""Inpainting one labelled object: where is repainted, and the labels afterwards. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from diffugen.instances import Instances

SIZE_MULTIPLE = 8  # pixels; Stable Diffusion's autoencoders halve the sides three times


def repaint_region(instances: Instances, target: int, margin_fraction: float) -> np.ndarray:
    """The mask of one object, grown by a margin that the other objects are kept out of: bool [H, W]."""
    mask = instances.masks[target]
    reach = round(margin_fraction * mask.size**0.5)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    grown = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    others = np.delete(instances.masks, target, axis=0).any(axis=0)
    return mask | (grown & ~others)


def merge_labels(
    before: Instances, target: int, region: np.ndarray, attended: Instances, min_area_fraction: float = 0.0
) -> tuple[Instances, bool]:
    """The labels of an inpainted image: the untouched objects keep theirs, the new one is attended.

    Args:
        before: labels of the image that was repainted.
        target: index of the object that was.
        region: bool [H, W], where.
        attended: what attention finds in the whole new image, class ids as in `before`; the best of it within the
            region is the new object.
        min_area_fraction: the new object, or what it leaves of another one, must cover this much of the image.

    Returns:
        The labels, the new object last, and whether it was found.
    """
    least = max(1.0, min_area_fraction * region.size)
    new = _best_inside(attended, region, least)
    untouched = before.subset(np.arange(len(before)) != target)
    visible = untouched.masks & ~new.masks.any(axis=0)
    areas = visible.sum(axis=(1, 2))
    kept = (areas > 0) & (areas >= np.minimum(untouched.masks.sum(axis=(1, 2)), least))
    carried = Instances.from_masks(visible[kept], untouched.class_ids[kept], untouched.scores[kept])
    return Instances.concatenate([carried, new]), len(new) > 0


def cut_instances(instances: Instances) -> Instances:
    """The instances of an image whose sides are cut to multiples of 8 pixels; ones outside become empty."""
    height, width = cut_size(instances.size_hw)
    if (height, width) == instances.size_hw:
        return instances
    return Instances.from_masks(instances.masks[:, :height, :width], instances.class_ids, instances.scores)


def cut_size(size_hw: Sequence[int]) -> tuple[int, int]:
    """Height and width down to multiples of 8 pixels, which every pipeline can take."""
    return size_hw[0] // SIZE_MULTIPLE * SIZE_MULTIPLE, size_hw[1] // SIZE_MULTIPLE * SIZE_MULTIPLE


def _best_inside(found: Instances, region: np.ndarray, least_area: float) -> Instances:
    """The instance with the most score and area within a region, cut to it; empty if none is large enough."""
    masks = found.masks & region
    areas = masks.sum(axis=(1, 2))
    worth = np.where(areas >= least_area, areas * found.scores, -1)
    best = np.flatnonzero(worth == worth.max(initial=-1))[:1] if (worth >= 0).any() else np.zeros(0, int)
    return Instances.from_masks(masks[best], found.class_ids[best], found.scores[best])
