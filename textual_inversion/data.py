"""From photos to what a training step sees: augmented views, their latents and weights, draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from diffugen.diffusion.denoising import safe_precision
from diffugen.diffusion.overflow import check_finite
from textual_inversion.config import AugmentConfig

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the package index for its version
import albumentations as A
import cv2

_INTERPOLATION = {"interpolation": cv2.INTER_CUBIC, "area_for_downscale": "image"}
_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "edge": cv2.BORDER_REPLICATE}


def augmentation(config: AugmentConfig, size_hw: tuple[int, int], seed: int) -> A.Compose:
    """Random views of a photo of any size: brought to the wanted size, flipped, moved, relit."""
    border = _BORDERS[config.border]
    zoom = (1 - config.scale_fraction, 1 + config.scale_fraction)
    shift = (-config.shift_fraction, config.shift_fraction)
    return A.Compose(
        [
            *_to_size(config.fit, size_hw, border),
            A.HorizontalFlip(p=config.flip_probability),
            A.Affine(
                scale=zoom,
                translate_percent={"x": shift, "y": shift},
                keep_ratio=True,
                border_mode=border,
                p=1.0,
            ),
            A.RandomBrightnessContrast(brightness_limit=config.brightness, contrast_limit=config.contrast, p=1.0),
        ],
        seed=seed,
    )


def _to_size(fit: str, size_hw: tuple[int, int], border: int) -> list[A.BasicTransform]:
    """Photos keep their proportions: they cover the size and are cropped to it, or stand in it whole."""
    height, width = size_hw
    if fit == "pad":
        whole = A.LongestMaxSize(max_size_hw=size_hw, **_INTERPOLATION)
        return [whole, A.PadIfNeeded(min_height=height, min_width=width, border_mode=border)]
    cover = A.SmallestMaxSize(max_size_hw=size_hw, **_INTERPOLATION)
    return [cover, A.RandomCrop(height, width) if fit == "random_crop" else A.CenterCrop(height, width)]


def augmented_views(
    photos: Iterable[np.ndarray], config: AugmentConfig, size_hw: tuple[int, int], seed: int
) -> Iterator[np.ndarray]:
    """`views_per_photo` views of every photo, uint8 [height, width, 3] each, one at a time."""
    views = augmentation(config, size_hw, seed)
    for photo in photos:
        for _ in range(config.views_per_photo):
            yield views(image=photo)["image"]


@dataclass(frozen=True)
class LatentPool:
    """The VAE's posterior of every view. Encoding is slow and the views are few, so it is done once.

    Attributes:
        mean, std: float32 [n, channels, h, w] on the CPU, before the VAE's scaling factor.
        weights: float32 [n, 1, h, w], how much every pixel counts in the loss.
    """

    mean: Tensor
    std: Tensor
    weights: Tensor


@torch.no_grad()
def encode_views(
    vae: Any,
    views: Iterator[np.ndarray],
    weigh: Callable[[list[np.ndarray]], Tensor] | None = None,
    batch_size: int = 8,
) -> LatentPool:
    """Encode views with an AutoencoderKL, on its own device and in its own dtype, a batch at a time.

    Args:
        vae: the encoder.
        views: uint8 RGB [H, W, 3], all of one size.
        weigh: gives a batch of views their weights, float32 [n, 1, h, w]; without it all pixels count alike.
        batch_size: views that are in memory together.
    """
    means, stds, weights = [], [], []
    with safe_precision(vae):
        for batch in _batches(views, batch_size):
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
            posterior = vae.encode(pixels).latent_dist
            check_finite(posterior.mean, "the VAE's encoder", vae.dtype)
            means.append(posterior.mean.float().cpu())
            stds.append(posterior.std.float().cpu())
            weights.append(weigh(batch).cpu() if weigh else torch.ones_like(means[-1][:, :1]))
    return LatentPool(torch.cat(means), torch.cat(stds), torch.cat(weights))


def _batches(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(islice(items, size)):
        yield batch


class Draw(TypedDict):
    """What one training step sees: everything random about it, decided by its seed and number alone."""

    captions: list[str]
    latents: Tensor
    """float32 [batch, channels, h, w], a sample of the posterior, before the VAE's scaling factor"""
    weights: Tensor
    """float32 [batch, 1, h, w], the weights of the loss"""
    noise: Tensor
    """float32, as `latents`"""
    timestep_fractions: Tensor
    """float32 [batch] in [0, 1)"""


class ConceptDraws(IterableDataset[Draw]):
    """An endless stream of `Draw`s; draw i is always the same, so a resumed run continues exactly.

    Args:
        pool: the encoded views.
        captions: for every view of the pool, its captions, of which each draw takes one.
        batch_size: views per draw.
        seed: seed of the stream.
        rank: which of the processes that train together; their streams differ.
        first: number of the first draw.
    """

    def __init__(
        self,
        pool: LatentPool,
        captions: Sequence[Sequence[str]],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        first: int = 0,
    ) -> None:
        self.pool, self.captions, self.batch_size = pool, captions, batch_size
        self.seed, self.rank, self.first = seed, rank, first

    def starting(self, first: int, rank: int) -> ConceptDraws:
        """The same stream from another draw on, of another process."""
        return ConceptDraws(
            self.pool, self.captions, batch_size=self.batch_size, seed=self.seed, rank=rank, first=first
        )

    def __iter__(self) -> Iterator[Draw]:
        return (self.draw(step) for step in count(self.first))

    def draw(self, step: int) -> Draw:
        """Draw number `step`."""
        mixed = np.random.SeedSequence([self.seed, self.rank, step]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(mixed >> 1))
        views = torch.randint(len(self.pool.mean), (self.batch_size,), generator=generator)
        words = torch.rand(self.batch_size, generator=generator)
        picks = zip(views.tolist(), words.tolist(), strict=True)
        mean, std = self.pool.mean[views], self.pool.std[views]
        # One timestep from each of batch_size equal slices: still uniform, and the loss is less noisy for it.
        slices = torch.arange(self.batch_size) + torch.rand(self.batch_size, generator=generator)
        return Draw(
            captions=[_pick(self.captions[view], word) for view, word in picks],
            latents=mean + std * torch.randn(mean.shape, generator=generator),
            weights=self.pool.weights[views],
            noise=torch.randn(mean.shape, generator=generator),
            timestep_fractions=(slices / self.batch_size).clamp(max=1 - 1e-6),
        )


def _pick(choices: Sequence[str], fraction: float) -> str:
    return choices[int(fraction * len(choices))]
