"""Is the concept drawn? What images of it share with the photos, as the base detector's backbone sees the object.

0 is an image of the word that the concept started from, 1 is another photo of the object. Features are of the object,
not of whole images: attention says where it is. No labels are needed, and no step of training sees the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.config.settings import GenerateConfig
from diffugen.detector.features import object_features
from diffugen.detector.model import load_detector
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.native import native_size_hw
from diffugen.diffusion.protocol import Pipeline
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from textual_inversion.config import ConceptConfig

NUM_IMAGES = 8
"""Images that are drawn to be scored."""
MOST_PHOTOS = 16
"""Photos that they are compared with."""


class ConceptFidelity:
    """Scores what a pipeline draws of a concept.

    Args:
        pipe: the pipeline, which knows the concept's start word.
        config: the concept.
        photos: uint8 RGB, what the concept should look like.
        settings: how images are generated.
        judge: weights of the base detector.
        seed: of the images.
    """

    def __init__(
        self,
        pipe: Pipeline,
        config: ConceptConfig,
        photos: Sequence[np.ndarray],
        settings: GenerateConfig,
        judge: Path,
        seed: int,
    ) -> None:
        height, width = native_size_hw(pipe)
        attention = settings.attention.model_copy(
            update={"self_attention_factor": 0, "attend": "tokens", "presence": False}
        )
        self._pipe, self._config, self._seed = pipe, config, seed
        self._settings = settings.model_copy(update={"height": height, "width": width, "attention": attention})
        self._detector = load_detector(judge)
        word = _prompt(config.initializer_word)
        shown = [at_most_native(photo, pipe) for photo in photos[:MOST_PHOTOS]]
        read = read_attention(pipe, shown, [word] * len(shown), attention)
        self._photos = self._features(shown, [one.heatmaps[0].values for one in read])
        self._start = self._draw(config.initializer_word)

    def score(self) -> float:
        """The score of what the pipeline draws of the placeholder now, see `progress`."""
        return progress(self._draw(self._config.placeholder_token), self._start, self._photos)

    def _draw(self, word: str) -> np.ndarray:
        prompts, seeds = [_prompt(word)] * NUM_IMAGES, [self._seed + number for number in range(NUM_IMAGES)]
        found = []
        for start in range(0, NUM_IMAGES, self._settings.batch_size):
            part = slice(start, start + self._settings.batch_size)
            found += generate_with_attention(self._pipe, prompts[part], seeds[part], self._settings)
        return self._features([image for image, _ in found], [one.heatmaps[0].values for _, one in found])

    def _features(self, images: Sequence[np.ndarray], heats: Sequence[np.ndarray]) -> np.ndarray:
        side = max(self._settings.size_hw)
        return object_features(self._detector, images, heats, imgsz=side, device=str(self._pipe.device))


def progress(drawn: np.ndarray, start: np.ndarray, photos: np.ndarray) -> float:
    """How far images of a concept have come from its start word's mean (0) to that of its photos (1).

    Args:
        drawn, start, photos: features [n, ...] of images of the concept, of its start word, and of photos.
    """
    drawn, start, photos = (features.reshape(len(features), -1).astype(float) for features in (drawn, start, photos))
    way = photos.mean(0) - start.mean(0)
    return float((drawn.mean(0) - start.mean(0)) @ way / max(way @ way, 1e-12))


def _prompt(word: str) -> Prompt:
    return Prompt(f"a photo of a {word}", (ObjectPhrase(word, word),))
