"""Outliners that nobody trained: GrabCut, and none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffugen.masks.graph_cut import MIN_EVIDENCE, MIN_EVIDENCE_SHRUNK, clear_cut, grabcut
from diffugen.masks.outline.base import Outline, OutlinePrompt
from diffugen.masks.refinement import WORKING_SIDE, at_most, resize_masks


class GrabCutOutliner:
    """Outlines by colour (Rother et al. 2004), see `diffugen.masks.graph_cut`; at a reduced size of large images.

    An object is cut where colours tell it from the background, by a stricter rule in large images. Elsewhere its mask,
    or what most of its views hold, stands at the image's own size.

    Args:
        enlargement: of a single view's pixels; above 1 thin parts survive (docs/labels.md, "Thin parts").
    """

    def __init__(self, enlargement: int = 2) -> None:
        self.enlargement = enlargement

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt, without a confidence."""
        small = at_most(image, WORKING_SIDE)
        min_evidence = MIN_EVIDENCE if small is image else MIN_EVIDENCE_SHRUNK
        return [_certain(self._mask(small, prompt, min_evidence), image.shape[:2]) for prompt in prompts]

    def _mask(self, image: np.ndarray, prompt: OutlinePrompt, min_evidence: float) -> np.ndarray:
        views = resize_masks(prompt.views > 0.5, image.shape[:2])
        if len(views) == 1:
            cut = grabcut(image, views[0], enlargement=self.enlargement, min_evidence=min_evidence)
        else:
            cut = clear_cut(image, views, min_evidence)
        return prompt.majority if cut is None else cut


class NoOutliner:
    """The prompt's mask as it is: what most of its views hold."""

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt, without a confidence."""
        return [_certain(prompt.majority, image.shape[:2]) for prompt in prompts]


def _certain(mask: np.ndarray, size_hw: tuple[int, int]) -> Outline:
    return Outline(resize_masks(mask[None], size_hw)[0].astype(np.float32))
