"""COCO instance JSON: masks as run lengths (exact, holes and all) or as polygons (what more tools read).

Polygons follow the pixels' outer edges; a mask with holes is always written as run lengths, since COCO's
polygons cannot say hole. Category ids are class ids + 1, as COCO starts at 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from diffugen.instances import Instances, encode_rle

Segmentation = Literal["rle", "polygon"]


def categories(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The `categories` list."""
    return [{"id": i + 1, "name": name, "supercategory": "object"} for i, name in enumerate(class_names)]


def annotations_of(
    instances: Instances, *, image_id: int, first_id: int, segmentation: Segmentation = "rle"
) -> list[dict[str, Any]]:
    """One annotation per instance that has any pixels, their ids counted from `first_id` (at least 1).

    Scores are kept (`score`), so that the same form serves for results.
    """
    results: list[dict[str, Any]] = []
    for mask, class_id, score in zip(instances.masks, instances.class_ids, instances.scores, strict=True):
        if not mask.any():
            continue
        rle = encode_rle(mask)
        results.append(
            {
                "id": first_id + len(results),
                "image_id": image_id,
                "category_id": int(class_id) + 1,
                "segmentation": (polygons_of_edges(mask) or rle) if segmentation == "polygon" else rle,
                "bbox": coco_mask.toBbox(rle).tolist(),
                "area": int(mask.sum()),
                "iscrowd": 0,
                "score": round(float(score), 6),
            }
        )
    return results


def polygons_of_edges(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons `[x1, y1, ...]` along the outer pixel edges of a mask's parts; none if it has holes."""
    contours, hierarchy = cv2.findContours(_crack_canvas(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if hierarchy is None or (hierarchy[0, :, 3] >= 0).any():
        return []
    return [np.ceil(contour[:, 0] / 2).ravel().tolist() for contour in contours]


def _crack_canvas(mask: np.ndarray) -> np.ndarray:
    """The mask at double size: a contour over its pixels 2i, 2i + 1 rounds up to the edges i, i + 1."""
    return np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)


def read(document: Mapping[str, Any], class_names: Sequence[str]) -> Iterator[tuple[dict[str, Any], Instances]]:
    """Each image's entry with its instances; crowds and categories not in `class_names` are passed over.

    Raises:
        ValueError: if the document lacks a part that COCO requires.
    """
    for part in ("images", "annotations", "categories"):
        if part not in document:
            raise ValueError(f"the COCO document has no {part!r}; it is not an instance file")
    class_of = {c["id"]: class_names.index(c["name"]) for c in document["categories"] if c["name"] in class_names}
    by_image = defaultdict(list)
    for annotation in document["annotations"]:
        if annotation["category_id"] in class_of and not annotation.get("iscrowd", 0):
            by_image[annotation["image_id"]].append(annotation)
    for image in document["images"]:
        size_hw = (int(image["height"]), int(image["width"]))
        found = by_image[image["id"]]
        yield (
            image,
            Instances.from_masks(
                np.array([decode(a["segmentation"], size_hw) for a in found], bool).reshape(-1, *size_hw),
                [class_of[a["category_id"]] for a in found],
                [a.get("score", 1.0) for a in found],
            ),
        )


def names_of(document: Mapping[str, Any]) -> list[str]:
    """The category names in the order of their ids."""
    return [category["name"] for category in sorted(document["categories"], key=lambda c: c["id"])]


def decode(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """A bool mask [H, W] from polygons, or compressed or plain run lengths."""
    height, width = size_hw
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        rle = segmentation
    else:
        rle = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(coco_mask.merge(rle) if isinstance(rle, list) else rle).astype(bool)
