"""Is the concept drawn? How far its images have come from those of its start word to the photos.

A detector's backbone looks at the object in each image: in the photos (found by the start word's attention), in images
of the start word, and in images of the token. The score is the token's mean on the way from the start word's mean, 0,
to the photos' mean, 1. No label is read. docs/concepts.md has how well it ranks concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.config.settings import GenerateConfig
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.native import native_size_hw
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from textual_inversion.config import ConceptConfig
from textual_inversion.photos import find_photos, load_photo

FIDELITY_FILE = "fidelity.json"

FAILED = 0.2
"""Below this a concept draws nothing of its photos."""

NUM_DRAWN, MOST_PHOTOS = 8, 24
"""Images of each word, and photos, that are looked at."""


def remedy(config: ConceptConfig) -> str:
    """What to do where a concept failed."""
    return (
        f"See concept/samples.png. Give the concept more steps (now {config.steps}), a higher learning_rate, another "
        "initializer_word, or a lora_rank; or more photos; and the run another --out."
    )


_NEAR = 3.0
"""A start word is as near to the photos as can be told if the squared way is less than this many of its variances."""


@dataclass(frozen=True)
class Fidelity:
    """How much a learned concept draws of its photos.

    Attributes:
        score: about 0 if it draws what its start word draws, about 1 if it draws what the photos show; None if the
            start word itself draws that, as far as can be told.
        by_step: the scores during training, by the number of steps; that of the best is kept.
    """

    score: float | None
    by_step: dict[int, float]

    @property
    def is_failed(self) -> bool:
        return self.score is not None and self.score < FAILED

    def sentence(self, config: ConceptConfig) -> str:
        """What it says about a concept."""
        token, word = config.placeholder_token, config.start_word
        if self.score is None:
            return f"Images of {word!r} are as near to the photos as can be told; {token} has no score."
        way = f"{min(max(0.0, self.score), 1.0):.0%} of the way from {word!r} to the photos"
        if self.is_failed:
            return f"The concept failed: images of {token} have come {way}, and at least {FAILED:.0%} are needed."
        return f"Images of {token} have come {way}, as the base detector sees them."

    def write(self, out: Path) -> None:
        """Write it into a concept's folder."""
        scores = {str(step): round(score, 4) for step, score in self.by_step.items()}
        write_json(out / FIDELITY_FILE, {"score": self.score and round(self.score, 4), "by_step": scores})

    @classmethod
    def read(cls, out: Path) -> Fidelity | None:
        """That of a concept's folder; None where none was measured.

        Raises:
            UserError: the file is damaged.
        """
        path = out / FIDELITY_FILE
        if not path.is_file():
            return None
        try:
            values = read_json(path)
            score, by_step = values["score"], {int(step): float(at) for step, at in values["by_step"].items()}
            return cls(None if score is None else float(score), by_step)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path} is damaged; restore it from a copy or remove it") from None


class FidelityJudge:
    """Scores what a pipeline draws of a concept's token, at any time of its training.

    Args:
        detector: weights of the detector whose backbone looks.
        config: the concept.
        pipe: the pipeline before it knows the token.
        settings: how images are generated.
        seed: of the images; those of the start word and of the token have the same noise.

    Attributes:
        start_is_near: whether the start word draws what the photos show, as far as can be told.
    """

    def __init__(
        self, detector: Path, config: ConceptConfig, pipe: Pipeline, settings: GenerateConfig, seed: int
    ) -> None:
        height, width = native_size_hw(pipe)
        attention = settings.attention.model_copy(update={"presence": False, "decoder": None})
        self._settings = settings.model_copy(update={"attention": attention, "height": height, "width": width})
        self._detector, self._token, self._template = detector, config.placeholder_token, config.templates[0]
        self._seed = seed
        photos = self._photos(config, pipe)
        start = self._drawn(pipe, config.start_word)
        self._start, self._way = start.mean(0), photos.mean(0) - start.mean(0)
        noise = sum(features.var(0).sum() / len(features) for features in (photos, start))
        self.start_is_near = bool(self._way @ self._way < _NEAR * noise)

    def __call__(self, pipe: Pipeline) -> float:
        """The score of the token as the pipeline knows it now."""
        drawn = self._drawn(pipe, self._token).mean(0) - self._start
        return float(drawn @ self._way / max(self._way @ self._way, 1e-12))

    def _photos(self, config: ConceptConfig, pipe: Pipeline) -> np.ndarray:
        images = [at_most_native(load_photo(path), pipe) for path in find_photos(config.photos)[:MOST_PHOTOS]]
        prompts = [self._prompt(config.start_word)] * len(images)
        return self._features(images, read_attention(pipe, images, prompts, self._settings.attention))

    def _drawn(self, pipe: Pipeline, word: str) -> np.ndarray:
        images, attention = [], []
        for first in range(0, NUM_DRAWN, self._settings.batch_size):
            seeds = range(self._seed + first, self._seed + min(first + self._settings.batch_size, NUM_DRAWN))
            batch = generate_with_attention(pipe, [self._prompt(word)] * len(seeds), list(seeds), self._settings)
            images += [image for image, _ in batch]
            attention += [seen for _, seen in batch]
        return self._features(images, attention)

    def _prompt(self, word: str) -> Prompt:
        return Prompt(self._template.format(word), (ObjectPhrase(word, word),))

    def _features(self, images: Sequence[np.ndarray], attention: Sequence[Any]) -> np.ndarray:
        """Of each image's object: float64 [n, d]."""
        from diffugen.detector.features import object_features  # seconds of imports, in processes of their own as well
        from diffugen.detector.model import load_detector

        heats = [one.heatmaps[0].values for one in attention]
        return object_features(load_detector(self._detector), images, heats).reshape(len(images), -1).astype(float)
