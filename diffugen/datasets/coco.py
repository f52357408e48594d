"""COCO instance JSON: masks as run lengths (exact, holes and all) or as polygons (what more tools read).

Polygons follow the pixels' outer edges; a mask with holes is always written as run lengths, since COCO's
polygons cannot say hole. Category ids are class ids + 1, as COCO starts at 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from diffugen.datasets.outlines import rings_of
from diffugen.instances import Instances, encode_rle

Segmentation = Literal["rle", "polygon"]


def categories(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The `categories` list."""
    return [{"id": i + 1, "name": name, "supercategory": "object"} for i, name in enumerate(class_names)]


class Document:
    """A COCO document in the making: images are numbered from 1, and their objects from 1.

    Args:
        class_names: become the categories.
        segmentation: how masks are encoded.
    """

    def __init__(self, class_names: Sequence[str], segmentation: Segmentation = "rle") -> None:
        self.segmentation = segmentation
        self.value: dict[str, Any] = {
            "info": {},
            "images": [],
            "annotations": [],
            "categories": categories(class_names),
        }

    def add(self, instances: Instances, file_name: str | None = None, **more: Any) -> list[dict[str, Any]]:
        """Add an image and its objects, those that have any pixels; returns their annotations.

        Args:
            instances: of the image.
            file_name: of the image, if it has one.
            more: further keys of the image's entry.
        """
        images, annotations = self.value["images"], self.value["annotations"]
        height, width = instances.size_hw
        named = {} if file_name is None else {"file_name": file_name}
        images.append({"id": len(images) + 1, **named, "height": height, "width": width, **more})
        added = annotations_of(
            instances, image_id=len(images), first_id=len(annotations) + 1, segmentation=self.segmentation
        )
        annotations += added
        return added


class StreamedDocument:
    """A COCO document of a split that is written entry by entry, so that memory does not grow with the dataset.

    Args:
        folder: for files without names, which hold the entries until `write`.
        class_names, segmentation: as for `Document`.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], segmentation: Segmentation = "rle") -> None:
        self.segmentation = segmentation
        self.categories = categories(class_names)
        self.images, self.annotations, self.file_names = (_Entries(folder) for _ in range(3))

    def add(self, instances: Instances, file_name: str, **more: Any) -> None:
        """Add an image and its objects, as `Document.add` does."""
        height, width = instances.size_hw
        number = self.images.count + 1
        self.images.append({"id": number, "file_name": file_name, "height": height, "width": width, **more})
        self.file_names.append(file_name)
        first = self.annotations.count + 1
        for annotation in annotations_of(instances, image_id=number, first_id=first, segmentation=self.segmentation):
            self.annotations.append(annotation)

    def write(self, path: Path) -> None:
        """Write the document, as `json.dumps` would."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"info": {}, "images": [')
            file.writelines(self.images.joined())
            file.write('], "annotations": [')
            file.writelines(self.annotations.joined())
            file.write(f'], "categories": {json.dumps(self.categories, ensure_ascii=False)}}}\n')


class _Entries:
    """JSON values in a file without a name, one a line."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self.file = TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115 (lasts as long as this)

    def append(self, value: Any) -> None:
        self.file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self.count += 1

    def __iter__(self) -> Iterator[str]:
        """The values' texts."""
        self.file.seek(0)
        return (line.removesuffix("\n") for line in self.file)

    def joined(self) -> Iterator[str]:
        """The texts with commas between them."""
        return (f"{', ' if number else ''}{text}" for number, text in enumerate(self))


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
    parts = rings_of(mask)
    return [] if any(len(part) > 1 for part in parts) else [part[0].ravel().tolist() for part in parts]
