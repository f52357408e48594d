"""Labelers: from images, and what is known about them, to labelled objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from diffugen.heatmaps import ImageAttention
from diffugen.instances import Instances
from diffugen.prompts import Prompt


@dataclass(frozen=True)
class LabelInput:
    """One image to label.

    Attributes:
        image: uint8 RGB [H, W, 3].
        prompt: what it shows, where that is known.
        attention: of the prompt's objects, where it was read.
    """

    image: np.ndarray
    prompt: Prompt | None = None
    attention: ImageAttention | None = None


class Labeler(Protocol):
    """Anything that finds the objects of images; an image without objects gets empty Instances."""

    name: str

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, in their order."""
        ...


class DetectorLabeler:
    """Labels from a YOLO segmentation checkpoint.

    Args:
        weights: the checkpoint.
        class_names: the dataset's classes; detections of anything else are dropped.
        score_threshold: detections below are dropped.
        imgsz: size at which the detector sees the images; None for the size it was trained at.
        class_map: the detector's class names -> the dataset's, many to one allowed; equal names need no
            entry.
        device: "auto", "cpu", "cuda:0".

    Raises:
        ConfigError: there is no such checkpoint, or it cannot be loaded safely.
    """

    name = "detector"

    def __init__(
        self,
        weights: Path,
        class_names: Sequence[str],
        *,
        score_threshold: float = 0.25,
        imgsz: int | None = None,
        class_map: Mapping[str, str] | None = None,
        device: str = "auto",
    ) -> None:
        from diffugen import detector  # ultralytics takes seconds to import, and attention does not need it

        self._predict = detector.predict
        self.model = detector.load_detector(Path(weights))
        self.class_names = tuple(class_names)
        self.score_threshold = score_threshold
        self.imgsz = imgsz
        self.class_map = class_map
        self.device = device

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input; prompts and heatmaps are not looked at."""
        return self._predict(
            self.model,
            [item.image for item in inputs],
            class_names=self.class_names,
            class_map=self.class_map,
            score_threshold=self.score_threshold,
            imgsz=self.imgsz,
            device=self.device,
        )
