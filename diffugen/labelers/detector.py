"""Labels from a trained detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffugen.class_maps import class_index, mapped_classes
from diffugen.detector.model import load_detector, predict
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.masks.matching import without_repeats


class DetectorLabeler:
    """Labels from a YOLO segmentation checkpoint.

    Args:
        weights: the checkpoint.
        class_names: the dataset's classes; detections of anything else are dropped. None: what the class map
            leads to, or without one all that the detector knows.
        score_threshold: detections below are dropped.
        imgsz: size at which the detector sees the images; None for the size it was trained at.
        class_map: the detector's class names -> the dataset's, many to one allowed; equal names need no
            entry.
        device: "auto", "cpu", "cuda:0".

    Raises:
        UserError: there is no such checkpoint, it cannot be loaded safely, or the classes do not fit it.
    """

    name = "detector"

    def __init__(
        self,
        weights: Path,
        class_names: Sequence[str] | None = None,
        *,
        score_threshold: float = 0.25,
        imgsz: int | None = None,
        class_map: Mapping[str, str] | None = None,
        device: str = "auto",
    ) -> None:
        self.model = load_detector(Path(weights))
        known = mapped_classes(self.model.names, None, class_map or {}, str(weights))
        self.class_names = known if class_names is None else list(class_names)
        class_index(self.model.names, self.class_names, class_map)  # a wrong map is reported before any work
        self.score_threshold = score_threshold
        self.imgsz = imgsz
        self.class_map = class_map
        self.device = device

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input; nothing but the image is looked at.

        An object that the detector calls by two names of one class counts once.
        """
        found = predict(
            self.model,
            [item.image for item in inputs],
            class_names=self.class_names,
            class_map=self.class_map,
            score_threshold=self.score_threshold,
            imgsz=self.imgsz,
            device=self.device,
        )
        return [without_repeats(instances) for instances in found] if self.class_map else found
