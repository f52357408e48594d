"""Outliners that nobody trained: GrabCut, and none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffugen.masks.graph_cut import agreed_cut, grabcut
from diffugen.masks.outline.base import Outline, OutlinePrompt
from diffugen.masks.refinement import WORKING_SIDE, at_most, resize_masks


class GrabCutOutliner:
    """Outlines by colour (Rother et al. 2004), see `diffugen.masks.graph_cut`; at a reduced size of large images.

    Args:
        enlargement: of a single view's pixels; above 1 thin parts survive (docs/labels.md, "Thin parts").
    """

    def __init__(self, enlargement: int = 2) -> None:
        self.enlargement = enlargement

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt, without a confidence."""
        small = at_most(image, WORKING_SIDE)
        cuts = [self._cut(small, resize_masks(prompt.views > 0.5, small.shape[:2])) for prompt in prompts]
        return [_certain(cut, image.shape[:2]) for cut in cuts]

    def _cut(self, image: np.ndarray, views: np.ndarray) -> np.ndarray:
        return grabcut(image, views[0], enlargement=self.enlargement) if len(views) == 1 else agreed_cut(image, views)


class NoOutliner:
    """The prompt's mask as it is: what most of its views hold."""

    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt, without a confidence."""
        return [_certain(prompt.majority, image.shape[:2]) for prompt in prompts]


def _certain(mask: np.ndarray, size_hw: tuple[int, int]) -> Outline:
    return Outline(resize_masks(mask[None], size_hw)[0].astype(np.float32))
