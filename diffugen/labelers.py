"""Labelers: from images, and what is known about them, to labelled objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from diffugen.attention import Heatmap
from diffugen.config import AttentionLabelConfig
from diffugen.instances import Instances
from diffugen.masks import clean_mask, compete, components, grabcut, otsu_mask, score_component, upsample
from diffugen.prompts import Prompt


@dataclass(frozen=True)
class LabelInput:
    """One image to label.

    Attributes:
        image: uint8 RGB [H, W, 3].
        prompt: what it shows, where that is known.
        heatmaps: one per entry of `prompt.objects`, in their order; empty where there are none.
    """

    image: np.ndarray
    prompt: Prompt | None = None
    heatmaps: tuple[Heatmap, ...] = ()


class Labeler(Protocol):
    """Anything that finds the objects of images; an image without objects gets empty Instances."""

    name: str

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, in their order."""
        ...


class AttentionLabeler:
    """Labels from the attention of a diffusion model (DiffuGen, 2023); see `diffugen.masks` for the steps.

    Every component of a phrase's heat becomes an instance; the likeliest come first. Phrases of one prompt
    compete for the pixels that several of them claim. A phrase that a prompt lists several times ("a car and
    a car") has its heatmaps averaged, as models hardly tell such words apart, and its components are its
    instances.

    Args:
        class_names: the dataset's classes; objects of other classes compete, but are not labelled.
        config: thresholds and sizes.
    """

    name = "attention"

    def __init__(self, class_names: Sequence[str], config: AttentionLabelConfig) -> None:
        self.class_ids = {name: index for index, name in enumerate(class_names)}
        self.config = config

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, sorted by falling score.

        Raises:
            ValueError: an input has not one heatmap per object of its prompt.
        """
        return [self._label_one(item) for item in inputs]

    def _label_one(self, item: LabelInput) -> Instances:
        size_hw = (item.image.shape[0], item.image.shape[1])
        objects = item.prompt.objects if item.prompt is not None else ()
        if len(objects) != len(item.heatmaps):
            raise ValueError(f"{len(item.heatmaps)} heatmaps for the {len(objects)} objects of {item.prompt}")
        counts = Counter(objects)
        heats = [upsample(_mean_heat(item, phrase), size_hw) for phrase in counts]
        claims = compete(heats, [otsu_mask(heat) for heat in heats])
        found = [Instances.empty(size_hw)]
        for phrase, heat, claim in zip(counts, heats, claims, strict=True):
            if phrase.class_name in self.class_ids:
                others = np.any([other for other in claims if other is not claim], axis=0) & ~claim
                class_id = self.class_ids[phrase.class_name]
                found.append(self._instances(item.image, heat, claim, others, class_id, counts[phrase]))
        instances = Instances.concatenate(found)
        order = np.argsort(-instances.scores, kind="stable")
        return instances.subset(order[instances.scores[order] >= self.config.score_threshold])

    def _instances(
        self,
        image: np.ndarray,
        heat: np.ndarray,
        claim: np.ndarray,
        others: np.ndarray,
        class_id: int,
        num_expected: int,
    ) -> Instances:
        """The components of one phrase; filling their holes must not take what other phrases have won."""
        mask = clean_mask(claim, self.config.erode_fraction, self.config.dilate_fraction)
        parts = components(mask & ~others, self.config.min_area_fraction) & ~others
        scores = []
        for index in range(len(parts)):
            siblings = [part for other, part in enumerate(parts[:num_expected]) if other != index]
            ignore = np.any(siblings, axis=0) if num_expected > 1 and siblings else None
            scores.append(score_component(heat, parts[index], ignore))
        if self.config.refine == "grabcut":
            # the score is of the heat, and stays; so does what other phrases have won
            refined = [grabcut(image, part) & ~others for part in parts]
            parts = np.array(refined, bool).reshape(parts.shape)
        return Instances.from_masks(parts, [class_id] * len(parts), scores)


def _mean_heat(item: LabelInput, phrase: object) -> np.ndarray:
    """Mean heat over the entries of a prompt's objects that are this phrase."""
    assert item.prompt is not None  # the caller has phrases from it
    pairs = zip(item.prompt.objects, item.heatmaps, strict=True)
    return np.mean([heatmap.values for entry, heatmap in pairs if entry == phrase], axis=0)


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
