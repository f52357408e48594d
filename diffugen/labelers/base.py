"""Labelers: from images, and what is known about them, to labelled objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffugen.attention.heatmaps import ImageAttention, attention_of
from diffugen.instances import Instances
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Sample


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


def label_input(sample: Sample) -> LabelInput:
    """What a labeler is given of an image, its attention where there is any."""
    return LabelInput(sample.pixels(), sample.prompt, attention_of(sample) if sample.heatmap_path else None)


class Labeler(Protocol):
    """Anything that finds the objects of images; an image without objects gets empty Instances."""

    name: str

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, in their order."""
        ...
