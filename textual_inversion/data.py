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

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the package index for its version
import albumentations as A
import cv2

VIEWS_PER_PHOTO = 16
"""Augmented views of each photo, encoded once and drawn from: enough that none is seen too often, quickly encoded."""

FLIP_PROBABILITY, ZOOM, SHIFT, RELIGHT = 0.5, 0.1, 0.1, 0.1
"""Small changes: without any, few photos teach the token their background; large ones change the object."""


def augmentation(size_hw: tuple[int, int], seed: int) -> A.Compose:
    """Random views of a photo of any size: scaled to cover the size, cropped, flipped, moved, relit."""
    height, width = size_hw
    return A.Compose(
        [
            A.SmallestMaxSize(max_size_hw=size_hw, interpolation=cv2.INTER_CUBIC, area_for_downscale="image"),
            A.RandomCrop(height, width),
            A.HorizontalFlip(p=FLIP_PROBABILITY),
            A.Affine(
                scale=(1 - ZOOM, 1 + ZOOM),
                translate_percent={"x": (-SHIFT, SHIFT), "y": (-SHIFT, SHIFT)},
                keep_ratio=True,
                border_mode=cv2.BORDER_REFLECT_101,
                p=1.0,
            ),
            A.RandomBrightnessContrast(brightness_limit=RELIGHT, contrast_limit=RELIGHT, p=1.0),
        ],
        seed=seed,
    )


def augmented_views(photos: Iterable[np.ndarray], size_hw: tuple[int, int], seed: int) -> Iterator[np.ndarray]:
    """`VIEWS_PER_PHOTO` views of every photo, uint8 [height, width, 3] each, one at a time."""
    views = augmentation(size_hw, seed)
    for photo in photos:
        for _ in range(VIEWS_PER_PHOTO):
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
