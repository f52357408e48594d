"""The outliner that a config names, and labelers whose masks it outlines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from diffugen.config.settings import AttentionLabelConfig
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.masks.outline.base import Outline, OutlinePrompt, Outliner, others_of
from diffugen.masks.outline.classic import GrabCutOutliner, NoOutliner
from diffugen.masks.refinement import resolve_overlaps


def load_outliner(config: AttentionLabelConfig, device: str = "auto") -> Outliner:
    """The outliner of `label.outline`; a network is loaded once.

    Raises:
        UserError: its model cannot be loaded.
    """
    if config.outline.method == "grabcut":
        return GrabCutOutliner()
    if config.outline.method == "none":
        return NoOutliner()
    try:
        return _load_network(config.outline.method, str(config.outline.model), device)
    except UserError as error:
        raise UserError(f"setting 'label.outline.model': {error}") from None


@cache
def _load_network(method: str, model: str, device: str) -> Outliner:
    if method == "sam":
        from diffugen.masks.outline.sam import SamOutliner  # transformers takes seconds to import

        return SamOutliner(model, device)
    from diffugen.masks.outline.learned import LearnedOutliner

    return LearnedOutliner(model, device)


class OutlinedLabeler:
    """A labeler whose masks are outlined again; boxes follow the masks, classes and scores stay.

    Args:
        labeler: whose masks.
        outliner: what outlines them.
    """

    def __init__(self, labeler: Labeler, outliner: Outliner) -> None:
        self.name = labeler.name
        self.labeler = labeler
        self.outliner = outliner

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, in their order."""
        found = self.labeler.label(inputs)
        return [self._outlined(item.image, instances) for item, instances in zip(inputs, found, strict=True)]

    def _outlined(self, image: np.ndarray, instances: Instances) -> Instances:
        masks = instances.masks
        rivals = others_of(masks) & ~masks
        prompts = [OutlinePrompt(mask[None], rest) for mask, rest in zip(masks, rivals, strict=True)]
        outlines = self.outliner.outline(image, prompts)
        found = disjoint_masks(outlines, masks, masks.astype(np.float32))
        kept = np.where(found.any(axis=(1, 2), keepdims=True), found, masks)
        return Instances.from_masks(kept, instances.class_ids, instances.scores)


def disjoint_masks(outlines: Sequence[Outline], starts: np.ndarray, heats: np.ndarray) -> np.ndarray:
    """Disjoint masks: a pixel that several outlines want goes to the likeliest, among equals as in `resolve_overlaps`.

    Args:
        outlines: n of one image.
        starts: bool [n, H, W], the parts that were outlined.
        heats: float [n, H, W], of each part's phrase.

    Returns:
        bool [n, H, W].
    """
    if not outlines:
        return starts
    probabilities = np.stack([outline.probability for outline in outlines])
    likeliest = probabilities == probabilities.max(axis=0)
    return resolve_overlaps((probabilities > 0.5) & likeliest, starts, heats)
