"""The attention of one image: a heatmap per object phrase, and what else labels are computed from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.files import write_files
from diffugen.prompts.prompt import ObjectPhrase
from diffugen.sample import Sample

_TINY = 1e-6
"""Far below an even share of attention; keeps logarithms finite."""


@dataclass(frozen=True)
class Heatmap:
    """Where one phrase of one image is attended, or where a decoder sees its class.

    Attributes:
        phrase: the words.
        values: float32 [h, w] at the latents' size, in [0, 1]: the mean attention probability over heads,
            layers, steps and the phrase's tokens. Never rescaled, so a phrase without an object has a low,
            flat map. With a decoder, the probability of the phrase's class.

    Raises:
        ValueError: the values are not a finite, non-negative float32 [h, w] array.
    """

    phrase: str
    values: np.ndarray

    def __post_init__(self) -> None:
        _check_map(self.values, f"the heatmap of {self.phrase!r}")


@dataclass(frozen=True)
class ImageAttention:
    """The attention of one image; at 64x64 latents 16 KiB per map.

    Attributes:
        heatmaps: one per entry of `prompt.objects`, in their order.
        rest: float32 [h, w], the summed attention of the prompt's other meaningful words (no articles,
            prepositions or punctuation): a competitor for the background. Zeros where there are none.
        num_tokens: how many text tokens, padding included, share a pixel's attention, which is 1 together: 77,
            or a multiple for long prompts.
        affinity: float16 [h', w', h', w'] or None: entry [y, x] is a map of where pixel (y, x) looks, its sum
            1: self-attention, the mean over heads, layers of one resolution, and steps.
        presence: float32, aligned with heatmaps, or None where it was not measured: by how much the denoising error
            rises without the phrase's words, see `diffugen.attention.presence`; NaN where that is unknown.
        certainty: float32 in [0, 1], aligned with heatmaps, or None without a decoder: how far its members agree on
            the phrase's pixels, see `diffugen.attention.decoder`; 1 where the heat is attention's.

    Raises:
        ValueError: a map is not of its dtype and shape, or not finite, or negative.
    """

    heatmaps: tuple[Heatmap, ...]
    rest: np.ndarray
    num_tokens: int = 77
    affinity: np.ndarray | None = None
    presence: np.ndarray | None = None
    certainty: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_map(self.rest, "the rest of the prompt")
        shapes = {heatmap.values.shape for heatmap in self.heatmaps} | {self.rest.shape}
        if len(shapes) > 1:
            raise ValueError(f"the maps of one image have different sizes {sorted(shapes)}")
        affinity = self.affinity
        if affinity is not None and (affinity.dtype != np.float16 or affinity.shape != affinity.shape[:2] * 2):
            raise ValueError(f"affinity must be float16 [h, w, h, w], not {affinity.dtype} {affinity.shape}")

    def save(self, path: Path) -> None:
        """Write an npz file, atomically and exactly: a resumed run labels as one that was never killed."""
        write_files({path: self.to_bytes()})

    def to_bytes(self) -> bytes:
        """The content of the npz file."""
        values = np.stack([heatmap.values for heatmap in self.heatmaps]) if self.heatmaps else np.zeros((0, 1, 1), "f4")
        arrays: dict[str, Any] = {"values": values, "rest": self.rest, "num_tokens": self.num_tokens}
        if self.affinity is not None:
            arrays["affinity"] = self.affinity
        if self.presence is not None:
            arrays["presence"] = self.presence
        if self.certainty is not None:
            arrays["certainty"] = self.certainty
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, phrases: Sequence[str]) -> ImageAttention:
        """Read what `save` wrote; `phrases` are the words of its heatmaps. A file of heatmaps alone will do."""
        with np.load(path) as file:
            values = file["values"]
            rest = file["rest"] if "rest" in file else np.zeros(values.shape[1:], np.float32)
            num_tokens = int(file["num_tokens"]) if "num_tokens" in file else 77
            affinity, presence, certainty = (file.get(name) for name in ("affinity", "presence", "certainty"))
        heatmaps = tuple(Heatmap(phrase, rows) for phrase, rows in zip(phrases, values, strict=True))
        return cls(heatmaps, rest, num_tokens, affinity, presence, certainty)


def attention_of(sample: Sample) -> ImageAttention:
    """The attention of a sample's image, read from its file: one heatmap per entry of `prompt.objects`.

    Raises:
        ValueError: it has no heatmaps.
    """
    if sample.heatmap_path is None:
        raise ValueError(f"sample {sample.name} has no heatmaps")
    return ImageAttention.load(sample.heatmap_path, [phrase.text for phrase in sample.prompt.objects])


def mean_heats(objects: Sequence[ObjectPhrase], attention: ImageAttention) -> dict[ObjectPhrase, np.ndarray]:
    """Heat by phrase: the mean over the entries of a prompt's objects that are this phrase."""
    pairs = list(zip(objects, attention.heatmaps, strict=True))
    return {
        phrase: np.mean([heatmap.values for entry, heatmap in pairs if entry == phrase], axis=0)
        for phrase in dict.fromkeys(objects)
    }


def geometric_mean(readings: Sequence[ImageAttention]) -> ImageAttention:
    """One attention from several readings of an image, each with its own words for the same objects.

    An object that no word of the model names is found by what many words agree on: a pixel is hot if all attend to it.

    Args:
        readings: of one image, with equally many heatmaps in one order; phrases, `num_tokens`, affinity,
            presence and certainty are the first one's.
    """
    first = readings[0]
    if len(readings) == 1:
        return first
    logs = [np.log([heatmap.values + _TINY for heatmap in reading.heatmaps]) for reading in readings]
    means = np.exp(np.mean(logs, axis=0)).astype(np.float32)
    heatmaps = tuple(replace(heatmap, values=mean) for heatmap, mean in zip(first.heatmaps, means, strict=True))
    return replace(first, heatmaps=heatmaps, rest=np.mean([reading.rest for reading in readings], axis=0))


def _check_map(values: np.ndarray, what: str) -> None:
    if values.ndim != 2 or values.dtype != np.float32:
        raise ValueError(f"values of {what} must be float32 [h, w], not {values.dtype} {values.shape}")
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise ValueError(f"values of {what} must be finite and not negative")
