"""The labeler that needs no detector: from the attention of a diffusion model to instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffugen.attention.heatmaps import ImageAttention, mean_heats
from diffugen.config.settings import AttentionLabelConfig
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.labelers.outlining import disjoint_masks, load_outliner
from diffugen.masks.outline.base import OutlinePrompt, heat_channels, others_of
from diffugen.masks.refinement import (
    WORKING_SIDE,
    at_most_hw,
    boundaries,
    compete,
    instance_parts,
    propagate,
    resize_masks,
)
from diffugen.masks.scoring import score_component
from diffugen.masks.thresholding import clean_mask, components, otsu_mask, upsample
from diffugen.prompts.prompt import ObjectPhrase

MIN_PRESENCE = 0.03
"""Phrases whose words help denoising by less than this share are absent: 96.8 % of the absent ones, 0.3 % of the
visible ones on rendered scenes (docs/labels.md)."""


@dataclass(frozen=True)
class PhraseHeat:
    """One phrase of a prompt and its attention.

    Attributes:
        heat: float32 [h, w], the mean over the objects that are this phrase.
        spread: float32 [h', w'], the same spread along self-attention, where that was kept.
        count: how often the prompt says it, and so how many instances there should be.
    """

    phrase: ObjectPhrase
    heat: np.ndarray
    spread: np.ndarray
    count: int


def phrase_heats(objects: Sequence[ObjectPhrase], attention: ImageAttention) -> list[PhraseHeat]:
    """The attention of each phrase of a prompt."""
    counts = Counter(objects)
    heats = np.stack(list(mean_heats(objects, attention).values()))
    spreads = heats if attention.affinity is None else propagate(heats, attention.affinity)
    return [PhraseHeat(*row) for row in zip(counts, heats, spreads, counts.values(), strict=True)]


def phrase_parts(
    size_hw: tuple[int, int],
    phrases: Sequence[PhraseHeat],
    min_area_fraction: float,
    affinity: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Where attention alone sees the objects of each phrase: bool [n, h, w] each, the hottest first.

    Args:
        size_hw: of the image; the parts' size is that or, for a large image, a smaller one.
        phrases: of one prompt; they compete for pixels.
        min_area_fraction: components that cover less of the image are noise.
        affinity: the image's self-attention, where it was kept: it separates objects of one phrase that heat joins.
    """
    size_hw = at_most_hw(size_hw, WORKING_SIDE)
    heats = [upsample(item.spread, size_hw) for item in phrases]
    # of the root, as a few glowing pixels would hide the rest of an object
    claims = compete(heats, [otsu_mask(np.sqrt(heat)) for heat in heats])
    rows = zip(phrases, claims, heats, strict=True)
    several = any(item.count > 1 for item in phrases)
    edges = upsample(boundaries(affinity), size_hw) if several and affinity is not None else None
    return [instance_parts(claim, heat, item.count, min_area_fraction, edges) for item, claim, heat in rows]


class AttentionLabeler:
    """Labels from the attention of a diffusion model.

    Method "refined": heat is spread along self-attention (where that was kept), its root thresholded by Otsu; phrases
    of one prompt compete for the pixels that several of them claim; components are joined or split towards as many
    instances as the prompt says, and outlined (`label.outline`). Heat of large images is worked on at a reduced size.

    A phrase whose presence was measured (`diffugen.attention.presence`) and is too low gets no label.

    Method "paper": DiffuGen (Shenoda and Kim, 2023): Otsu, erosion, dilation, contours; each phrase by itself.

    In both, the likeliest come first, and a phrase that a prompt lists several times ("a car and a car") has its
    heatmaps averaged, as models hardly distinguish such words, and its components are its instances.

    Args:
        class_names: the dataset's classes; objects of other classes compete, but are not labelled.
        config: the method and its thresholds.
        score_threshold: lower instances are dropped.
        device: where a network that outlines runs: "auto", "cpu", "cuda:0".

    Raises:
        UserError: the outliner cannot be loaded.
    """

    name = "attention"

    def __init__(
        self,
        class_names: Sequence[str],
        config: AttentionLabelConfig,
        *,
        score_threshold: float = 0.0,
        device: str = "auto",
    ) -> None:
        self.class_ids = {name: index for index, name in enumerate(class_names)}
        self.config = config
        self.score_threshold = score_threshold
        self.outliner = load_outliner(config, device)

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, sorted by falling score; without a prompt or attention there are none.

        Raises:
            ValueError: an input has not one heatmap per object of its prompt.
        """
        return [self._label_one(item) for item in inputs]

    def _label_one(self, item: LabelInput) -> Instances:
        size_hw = (item.image.shape[0], item.image.shape[1])
        objects = item.prompt.objects if item.prompt is not None else ()
        heatmaps = item.attention.heatmaps if item.attention is not None else ()
        if len(objects) != len(heatmaps):
            raise ValueError(f"{len(heatmaps)} heatmaps for the {len(objects)} objects of {item.prompt}")
        if item.attention is None or not objects:
            return Instances.empty(size_hw)
        find = self._refined if self.config.method == "refined" else self._by_the_paper
        instances = find(item.image, objects, item.attention)
        order = np.argsort(-instances.scores, kind="stable")
        return instances.subset(order[instances.scores[order] >= self.score_threshold])

    def _by_the_paper(self, image: np.ndarray, objects: Sequence[ObjectPhrase], attention: ImageAttention) -> Instances:
        found = [Instances.empty(image.shape[:2])]
        for phrase, heat in mean_heats(objects, attention).items():
            values = upsample(heat, image.shape[:2])
            mask = clean_mask(otsu_mask(values), self.config.erode_fraction, self.config.dilate_fraction)
            parts = components(mask, self.config.min_area_fraction)
            found.append(self._instances(phrase, parts, heat_scores(values, parts, objects.count(phrase), attention)))
        return Instances.concatenate(found)

    def _refined(self, image: np.ndarray, objects: Sequence[ObjectPhrase], attention: ImageAttention) -> Instances:
        objects, attention = _present(objects, attention, MIN_PRESENCE)
        if not objects:
            return Instances.empty(image.shape[:2])
        phrases = phrase_heats(objects, attention)
        parts = phrase_parts(image.shape[:2], phrases, self.config.min_area_fraction, attention.affinity)
        seeds = np.concatenate(parts)
        owners = [index for index, found in enumerate(parts) for _ in found]
        outlines = self.outliner.outline(image, outline_prompts(seeds, owners, phrases))
        heats = np.array([upsample(item.spread, image.shape[:2]) for item in phrases])
        masks = disjoint_masks(outlines, resize_masks(seeds, image.shape[:2]), heats[owners])
        found = [Instances.empty(image.shape[:2])]
        for index, item in enumerate(phrases):
            members = [k for k, owner in enumerate(owners) if owner == index and masks[k].any()]
            scores = heat_scores(upsample(item.spread, seeds.shape[1:]), seeds[members], item.count, attention)
            confidences = [outlines[k].confidence for k in members]
            certain = certainty_of(item.phrase, objects, attention)
            judged = [certain * score for score in with_confidences(scores, confidences)]
            found.append(self._instances(item.phrase, masks[members], judged))
        return Instances.concatenate(found)

    def _instances(self, phrase: ObjectPhrase, masks: np.ndarray, scores: Sequence[float]) -> Instances:
        if phrase.class_name not in self.class_ids:
            return Instances.empty((masks.shape[1], masks.shape[2]))
        return Instances.from_masks(masks, [self.class_ids[phrase.class_name]] * len(masks), scores)


def outline_prompts(parts: np.ndarray, owners: Sequence[int], phrases: Sequence[PhraseHeat]) -> list[OutlinePrompt]:
    """What an outliner is given of each part.

    Args:
        parts: bool [n, h, w], of one image.
        owners: the index of each part's phrase.
        phrases: of the image's prompt.
    """
    channels = heat_channels(np.stack([item.heat for item in phrases]), np.stack([item.spread for item in phrases]))
    return [
        OutlinePrompt(part[None], rest, channels[owner])
        for part, rest, owner in zip(parts, others_of(parts), owners, strict=True)
    ]


def heat_scores(heat: np.ndarray, parts: np.ndarray, count: int, attention: ImageAttention) -> list[float]:
    """The score of each part of a phrase, by the heat (float [H, W]) that it was cut from.

    Args:
        parts: bool [n, H, W], the hottest first.
        count: how many objects the prompt asks for.
    """
    scores = []
    for index, part in enumerate(parts):
        siblings = [other for k, other in enumerate(parts[:count]) if k != index]
        ignore = np.any(siblings, axis=0) if count > 1 and siblings else None
        scores.append(score_component(heat, part, ignore, 1 / attention.num_tokens))
    return scores


def certainty_of(phrase: ObjectPhrase, objects: Sequence[ObjectPhrase], attention: ImageAttention) -> float:
    """How far a decoder's members agree on a phrase; 1 where its heat is attention's."""
    if attention.certainty is None:
        return 1.0
    return float(np.mean([attention.certainty[k] for k, other in enumerate(objects) if other == phrase]))


def with_confidences(scores: Sequence[float], confidences: Sequence[float | None]) -> list[float]:
    """The outliner's own estimate of each mask's quality; the heat's score where it has none."""
    return [score if confidence is None else confidence for score, confidence in zip(scores, confidences, strict=True)]


def _present(
    objects: Sequence[ObjectPhrase], attention: ImageAttention, min_presence: float
) -> tuple[Sequence[ObjectPhrase], ImageAttention]:
    """The objects that are in the image, and their attention; all of them where that was not measured."""
    if attention.presence is None:
        return objects, attention
    shown = [k for k in range(len(objects)) if not attention.presence[k] < min_presence]  # NaN: unknown
    certainty = None if attention.certainty is None else attention.certainty[shown]
    rest = replace(
        attention,
        heatmaps=tuple(attention.heatmaps[k] for k in shown),
        presence=attention.presence[shown],
        certainty=certainty,
    )
    return [objects[k] for k in shown], rest
