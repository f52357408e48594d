"""Labelled objects of one image, as aligned arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

_MOST_PIXELS = 2**30  # that run lengths are unpacked to; a short text could ask for any number


@dataclass(frozen=True)
class Instances:
    """The n labelled objects of one image.

    Attributes:
        masks: bool [n, H, W].
        xyxy: float32 [n, 4], box corners in pixels (right and bottom edges exclusive).
        class_ids: int64 [n], indices into the class names of the dataset.
        scores: float32 [n] in [0, 1].

    Raises:
        ValueError: if the arrays are not aligned or out of range.
    """

    masks: np.ndarray
    xyxy: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.masks)
        if self.masks.ndim != 3 or self.masks.dtype != bool:
            raise ValueError(f"masks must be bool [n, H, W], not {self.masks.dtype} {self.masks.shape}")
        shapes = {"xyxy": (n, 4), "class_ids": (n,), "scores": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, not {getattr(self, name).shape}")
        if n and not (self.scores.min() >= 0 and self.scores.max() <= 1):
            raise ValueError(f"scores must lie in [0, 1], not {self.scores}")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.masks.shape[1], self.masks.shape[2]

    @classmethod
    def empty(cls, size_hw: tuple[int, int]) -> Instances:
        """No objects in an image of the given height and width."""
        return cls.from_masks(np.zeros((0, *size_hw), bool), [], [])

    @classmethod
    def from_masks(
        cls,
        masks: np.ndarray,
        class_ids: Sequence[int] | np.ndarray,
        scores: Sequence[float] | np.ndarray | None = None,
    ) -> Instances:
        """Build instances from bool masks [n, H, W]; boxes follow from the masks, scores default to 1."""
        masks = np.asarray(masks, bool)
        return cls(
            masks=masks,
            xyxy=np.array([box_of(mask) for mask in masks], np.float32).reshape(-1, 4),
            class_ids=np.asarray(class_ids, np.int64),
            scores=np.ones(len(masks), np.float32) if scores is None else np.asarray(scores, np.float32),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Instances]) -> Instances:
        """Join the instances of one image from several sources."""
        fields = ("masks", "xyxy", "class_ids", "scores")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})

    def subset(self, index: Any) -> Instances:
        """The instances chosen by a bool or integer index array."""
        index = np.asarray(index)
        if index.size == 0:
            index = index.astype(np.int64)
        return Instances(self.masks[index], self.xyxy[index], self.class_ids[index], self.scores[index])

    @property
    def polygons(self) -> list[list[np.ndarray]]:
        """For each instance its outer contours, each float32 [k, 2] (x, y) pixel centres, k >= 3."""
        return [polygons_of(mask) for mask in self.masks]

    def to_json(self) -> dict[str, Any]:
        """An exact JSON form: masks as COCO run-length strings."""
        return {
            "size_hw": list(self.size_hw),
            "class_ids": self.class_ids.tolist(),
            "scores": [round(float(score), 6) for score in self.scores],
            "masks": [encode_rle(mask)["counts"] for mask in self.masks],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Instances:
        """The inverse of `to_json`."""
        size_hw = tuple(value["size_hw"])
        masks = [decode_rle({"size": list(size_hw), "counts": counts}) for counts in value["masks"]]
        return cls.from_masks(np.array(masks, bool).reshape(-1, *size_hw), value["class_ids"], value["scores"])


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Tight xyxy box of a bool mask [H, W]; zeros for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return 0.0, 0.0, 0.0, 0.0
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def polygons_of(mask: np.ndarray) -> list[np.ndarray]:
    """Outer contours of a bool mask by simple chain approximation; fewer than three points are dropped."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0].astype(np.float32) for contour in contours if len(contour) >= 3]


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A bool mask [H, W] as COCO's compressed RLE, its counts a str."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """A bool mask [H, W] from COCO's RLE: `size` [H, W], and `counts` compressed or as a list of run lengths.

    Raises:
        ValueError: the runs are not as many pixels as the size has. pycocotools would return whatever lay in memory.
    """
    height, width = rle["size"]
    if not (isinstance(height, int) and isinstance(width, int) and 0 <= height * width <= _MOST_PIXELS):
        raise ValueError(f"the size [{height!r}, {width!r}] is none of an image")
    counts = rle["counts"]
    runs = _decompressed(counts) if isinstance(counts, str | bytes) else _run_lengths(counts, height * width)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"the run lengths sum to {runs.sum()}, not to {height} x {width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _run_lengths(counts: Any, most: int) -> np.ndarray:
    if not isinstance(counts, list | tuple) or any(type(run) is not int or not 0 <= run <= most for run in counts):
        raise ValueError(f"the run lengths are not all whole numbers from 0 to {most}")
    return np.array(counts, np.int64)


def _decompressed(counts: str | bytes) -> np.ndarray:
    """Run lengths from COCO's string: five bits a character, from the fourth run on as differences to the run before
    the last."""
    runs: list[int] = []
    value = place = 0
    for code in counts.encode("latin-1", "replace") if isinstance(counts, str) else counts:
        if not 48 <= code < 112 or place > 35:
            raise ValueError("the compressed run lengths are damaged")
        value |= (code - 48 & 31) << place
        place += 5
        if not code - 48 & 32:
            value -= (code - 48 & 16) << place - 4  # the sign
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = place = 0
    if place or not runs:
        raise ValueError("the compressed run lengths are cut off")
    return np.array(runs)
