"""From a folder of photos to what a training step sees: photos, augmented views, their latents, draws."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import IterableDataset

from diffugen.config import ConfigError
from textual_inversion.config import AugmentConfig

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the package index for its version
import albumentations as A
import cv2

logger = logging.getLogger(__name__)

PHOTO_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "edge": cv2.BORDER_REPLICATE}


def find_photos(folder: Path) -> list[Path]:
    """The photos of a concept, in the order of their names.

    Raises:
        ConfigError: the folder does not exist or has no photo in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"concept.photos {str(folder)!r} is not a folder; give one with photos of the object")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        known = ", ".join(sorted(suffix[1:] for suffix in PHOTO_SUFFIXES))
        raise ConfigError(f"concept.photos {str(folder)!r} has no photos; put some there ({known})")
    if len(photos) < len(files):
        others = [path.name for path in files if path not in set(photos)]
        logger.warning("concept.photos: not photos, left out: %s", ", ".join(others))
    return photos


def load_photo(path: Path) -> np.ndarray:
    """A photo as uint8 RGB [H, W, 3]: turned as its EXIF says, over white where it is transparent.

    Raises:
        ConfigError: the file is not a readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()  # animations: their first frame
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_as_rgb(upright), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "no known image format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ConfigError(f"concept.photos: {str(path)!r} cannot be read ({reason}); replace or remove it") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip 16 bits to 8 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def digest(paths: Sequence[Path]) -> str:
    """A short fingerprint of the files' names and bytes."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def augmentation(config: AugmentConfig, size_hw: tuple[int, int], seed: int) -> A.Compose:
    """Random views of a photo of any size: cover the wanted size, crop, flip, move, relight."""
    height, width = size_hw
    zoom = (1 - config.scale_fraction, 1 + config.scale_fraction)
    shift = (-config.shift_fraction, config.shift_fraction)
    return A.Compose(
        [
            A.SmallestMaxSize(max_size_hw=(height, width), interpolation=cv2.INTER_CUBIC, area_for_downscale="image"),
            A.RandomCrop(height, width),
            A.HorizontalFlip(p=config.flip_probability),
            A.Affine(
                scale=zoom,
                translate_percent={"x": shift, "y": shift},
                keep_ratio=True,
                border_mode=_BORDERS[config.border],
                p=1.0,
            ),
            A.RandomBrightnessContrast(brightness_limit=config.brightness, contrast_limit=config.contrast, p=1.0),
        ],
        seed=seed,
    )


def augmented_views(
    photos: Sequence[np.ndarray], config: AugmentConfig, size_hw: tuple[int, int], seed: int
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
    """

    mean: Tensor
    std: Tensor


@torch.no_grad()
def encode_views(vae: Any, views: Iterator[np.ndarray], batch_size: int = 8) -> LatentPool:
    """Encode uint8 RGB [H, W, 3] views with an AutoencoderKL, on its own device and in its own dtype."""
    means, stds = [], []
    for batch in _batches(views, batch_size):
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        posterior = vae.encode(pixels).latent_dist
        means.append(posterior.mean.float().cpu())
        stds.append(posterior.std.float().cpu())
    return LatentPool(torch.cat(means), torch.cat(stds))


def _batches(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Draw(TypedDict):
    """What one training step sees: everything random about it, decided by its seed and number alone."""

    captions: list[str]
    latents: Tensor
    """float32 [batch, channels, h, w], a sample of the posterior, before the VAE's scaling factor"""
    noise: Tensor
    """float32, as `latents`"""
    timestep_fractions: Tensor
    """float32 [batch] in [0, 1)"""


class ConceptDraws(IterableDataset[Draw]):
    """An endless stream of `Draw`s; draw i is always the same, so a resumed run continues exactly.

    Args:
        pool: the encoded views.
        captions: the templates with the token in place.
        batch_size: views per draw.
        seed: seed of the stream; processes that train together need different ones.
        first: number of the first draw.
    """

    def __init__(
        self, pool: LatentPool, captions: Sequence[str], *, batch_size: int, seed: int, first: int = 0
    ) -> None:
        self.pool, self.captions, self.batch_size, self.seed, self.first = (
            pool,
            captions,
            batch_size,
            seed,
            first,
        )

    def __iter__(self) -> Iterator[Draw]:
        return (self.draw(step) for step in count(self.first))

    def draw(self, step: int) -> Draw:
        """Draw number `step`."""
        mixed = np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(mixed >> 1))
        views = torch.randint(len(self.pool.mean), (self.batch_size,), generator=generator)
        words = torch.randint(len(self.captions), (self.batch_size,), generator=generator)
        mean, std = self.pool.mean[views], self.pool.std[views]
        # One timestep from each of batch_size equal slices: still uniform, and the loss is less noisy for it.
        slices = torch.arange(self.batch_size) + torch.rand(self.batch_size, generator=generator)
        return Draw(
            captions=[self.captions[index] for index in words.tolist()],
            latents=mean + std * torch.randn(mean.shape, generator=generator),
            noise=torch.randn(mean.shape, generator=generator),
            timestep_fractions=(slices / self.batch_size).clamp(max=1 - 1e-6),
        )
