"""Scenes encoded once by the autoencoder, so that the denoiser's training neither renders nor encodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from ..files import atomic_path
from .render import render
from .scene import sample_scene
from .train_vae import to_tensor

# Image size and its share of the scenes; some are not square, so that the model draws those too.
SIZES_HW = {(128, 128): 0.8, (96, 160): 0.1, (160, 96): 0.1}
_CHUNK = 1000  # scenes per file; a file that exists is complete


class LatentCache:
    """The latents of training scenes and where their objects are, on disk in chunks of one image size each.

    Args:
        folder: where the chunks are; those that are missing are made.
        vae: the trained autoencoder.
        num_scenes: scenes of the default size distribution.
        seed: training scenes have seeds from seed * 10**7 on.
    """

    def __init__(self, folder: Path, vae: AutoencoderKL, *, num_scenes: int, device: torch.device, seed: int) -> None:
        num_chunks = max(len(SIZES_HW), num_scenes // _CHUNK)
        sizes = [size for size, share in SIZES_HW.items() for _ in range(max(1, round(share * num_chunks)))]
        self._chunks, self._first_seeds = [], []
        for k, size_hw in enumerate(tqdm(sizes, desc="latents")):
            path, first = folder / f"{k:04d}.npy", seed * 10**7 + k * _CHUNK
            if not path.exists():
                with atomic_path(path) as temporary:
                    np.save(temporary, encode_scenes(vae, range(first, first + _CHUNK), size_hw, device))
            self._chunks.append(np.load(path))
            self._first_seeds.append(first)

    def batch(self, rng: np.random.Generator, num: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Latents float32 [num, 4, h, w] of one size, the share of objects in each pixel, the seeds of the scenes."""
        size = self._chunks[rng.integers(len(self._chunks))].shape
        same = [k for k, chunk in enumerate(self._chunks) if chunk.shape == size]
        chunks, rows = rng.choice(same, num), rng.integers(_CHUNK, size=num)
        encoded = np.stack([self._chunks[k][row] for k, row in zip(chunks, rows, strict=True)])
        scene_seeds = np.array([self._first_seeds[k] for k in chunks]) + rows
        return *_split(torch.from_numpy(encoded).float()), scene_seeds


def _split(encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return encoded[:, :4], encoded[:, 4]


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, seeds: range, size_hw: tuple[int, int], device: torch.device) -> np.ndarray:
    """Latent means of rendered scenes and, as a fifth channel, the share of objects: float16 [n, 5, H/8, W/8]."""
    encoded = []
    for start in range(0, len(seeds), 20):
        drawn = [render(sample_scene(seed), size_hw) for seed in seeds[start : start + 20]]
        objects = torch.from_numpy(np.stack([scene.masks.any(axis=0) for scene in drawn])).float()
        with torch.autocast(device.type, torch.bfloat16):
            images = to_tensor(np.stack([scene.image for scene in drawn])).to(device)
            latents = vae.encode(images).latent_dist.mean.float().cpu()
        share = torch.nn.functional.adaptive_avg_pool2d(objects[:, None], latents.shape[-2:])
        encoded.append(torch.cat([latents, share], dim=1))
    return torch.cat(encoded).numpy().astype(np.float16)
