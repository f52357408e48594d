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
from diffugen.masks.graph_cut import grabcut
from diffugen.masks.refinement import WORKING_SIDE, at_most, compete, instance_parts, propagate, resize_masks, settle
from diffugen.masks.scoring import score_component
from diffugen.masks.thresholding import clean_mask, components, otsu_mask, upsample
from diffugen.prompts.prompt import ObjectPhrase


@dataclass(frozen=True)
class _Phrase:
    """One phrase of a prompt, at the size at which it is worked on.

    Attributes:
        heat: float32 [H, W].
        claim: bool [H, W], the pixels it has won.
        count: how often the prompt says it, and so how many instances there should be.
    """

    phrase: ObjectPhrase
    heat: np.ndarray
    claim: np.ndarray
    count: int


class AttentionLabeler:
    """Labels from the attention of a diffusion model.

    Method "refined": heat is spread along self-attention (where that was kept), its root thresholded by Otsu; phrases
    of one prompt compete for the pixels that several of them claim; components are joined or split towards as many
    instances as the prompt says, their edges moved to the image's own by GrabCut. Large images are worked on at a
    reduced size.

    A phrase whose presence was measured (`diffugen.attention.presence`) and is too low gets no label.

    Method "paper": DiffuGen (Shenoda and Kim, 2023): Otsu, erosion, dilation, contours; each phrase by itself.

    In both, the likeliest come first, and a phrase that a prompt lists several times ("a car and a car") has its
    heatmaps averaged, as models hardly tell such words apart, and its components are its instances.

    Args:
        class_names: the dataset's classes; objects of other classes compete, but are not labelled.
        config: the method and its thresholds.
    """

    name = "attention"

    def __init__(self, class_names: Sequence[str], config: AttentionLabelConfig) -> None:
        self.class_ids = {name: index for index, name in enumerate(class_names)}
        self.config = config

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
        return instances.subset(order[instances.scores[order] >= self.config.score_threshold])

    def _by_the_paper(self, image: np.ndarray, objects: Sequence[ObjectPhrase], attention: ImageAttention) -> Instances:
        found = [Instances.empty(image.shape[:2])]
        for phrase, heat in mean_heats(objects, attention).items():
            values = upsample(heat, image.shape[:2])
            mask = clean_mask(otsu_mask(values), self.config.erode_fraction, self.config.dilate_fraction)
            parts = components(mask, self.config.min_area_fraction)
            item = _Phrase(phrase, values, mask, objects.count(phrase))
            found.append(self._instances(item, parts, parts, attention.num_tokens))
        return Instances.concatenate(found)

    def _refined(self, image: np.ndarray, objects: Sequence[ObjectPhrase], attention: ImageAttention) -> Instances:
        objects, attention = _present(objects, attention, self.config.min_presence)
        if not objects:
            return Instances.empty(image.shape[:2])
        small = at_most(image, WORKING_SIDE)
        phrases = self._claims(small.shape[:2], objects, attention)
        parts = [instance_parts(item.claim, item.heat, item.count, self.config.min_area_fraction) for item in phrases]
        starts = np.concatenate(parts)
        owners = [index for index, own in enumerate(parts) for _ in own]
        enlargement = self.config.cut_enlargement
        cuts = np.array([grabcut(small, part, enlargement=enlargement) for part in starts], bool).reshape(starts.shape)
        cuts = settle(cuts, starts, np.array([phrases[index].heat for index in owners]))
        masks = resize_masks(cuts, image.shape[:2])
        found = [Instances.empty(image.shape[:2])]
        for index, item in enumerate(phrases):
            own = [k for k, owner in enumerate(owners) if owner == index and masks[k].any()]
            found.append(self._instances(item, starts[own], masks[own], attention.num_tokens))
        return Instances.concatenate(found)

    @staticmethod
    def _claims(size_hw: tuple[int, int], objects: Sequence[ObjectPhrase], attention: ImageAttention) -> list[_Phrase]:
        counts = Counter(objects)
        values = np.stack(list(mean_heats(objects, attention).values()))
        if attention.affinity is not None:
            values = propagate(values, attention.affinity)
        heats = [upsample(heat, size_hw) for heat in values]
        # of the root, as a few glowing pixels would hide the rest of an object
        claims = compete(heats, [otsu_mask(np.sqrt(heat)) for heat in heats])
        return [_Phrase(*row) for row in zip(counts, heats, claims, counts.values(), strict=True)]

    def _instances(self, item: _Phrase, parts: np.ndarray, masks: np.ndarray, num_tokens: int) -> Instances:
        """Scores are of the heat, in the `parts` that it was cut into, whatever has become of their edges."""
        if item.phrase.class_name not in self.class_ids:
            return Instances.empty((masks.shape[1], masks.shape[2]))
        scores = []
        for index, part in enumerate(parts):
            siblings = [other for k, other in enumerate(parts[: item.count]) if k != index]
            ignore = np.any(siblings, axis=0) if item.count > 1 and siblings else None
            scores.append(score_component(item.heat, part, ignore, 1 / num_tokens))
        return Instances.from_masks(masks, [self.class_ids[item.phrase.class_name]] * len(masks), scores)


def _present(
    objects: Sequence[ObjectPhrase], attention: ImageAttention, min_presence: float
) -> tuple[Sequence[ObjectPhrase], ImageAttention]:
    """The objects that are in the image, and their attention; all of them where that was not measured."""
    if attention.presence is None:
        return objects, attention
    shown = [k for k in range(len(objects)) if not attention.presence[k] < min_presence]  # NaN: cannot be told
    heatmaps = tuple(attention.heatmaps[k] for k in shown)
    return [objects[k] for k in shown], replace(attention, heatmaps=heatmaps, presence=attention.presence[shown])
