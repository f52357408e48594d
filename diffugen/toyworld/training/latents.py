"""Scenes encoded once: the denoiser's training neither renders, nor encodes, nor splits captions into tokens."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from diffugen.files import atomic_path
from diffugen.progress import progress_bar
from diffugen.toyworld.captions import caption
from diffugen.toyworld.render import render
from diffugen.toyworld.scene import sample_scene
from diffugen.toyworld.training.train_vae import to_tensor

# Image size and its share of the scenes; some are not square, so that the model draws those too.
SIZES_HW = {(128, 128): 0.8, (96, 160): 0.1, (160, 96): 0.1}
NUM_CAPTIONS = 8  # wordings of every scene
_CHUNK = 1000  # scenes per file; a file that exists is complete


class LatentCache:
    """Latents of training scenes, where their objects are and their captions: on disk in chunks of one size each.

    All of it is held on the device: 2.5 kB of latents and 1.2 kB of tokens per scene.

    Args:
        folder: where the chunks are; those that are missing are made, by as many processes as there are cores.
        vae: the trained autoencoder.
        tokenizer: splits the captions.
        num_scenes: scenes of the default size distribution.
        seed: training scenes have seeds from seed * 10**7 on.
    """

    def __init__(
        self,
        folder: Path,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizer,
        *,
        num_scenes: int,
        device: torch.device,
        seed: int,
    ) -> None:
        num_chunks = max(len(SIZES_HW), num_scenes // _CHUNK)
        sizes = [size for size, share in SIZES_HW.items() for _ in range(max(1, round(share * num_chunks)))]
        jobs = [(folder / f"{k:04d}.npz", seed * 10**7 + k * _CHUNK, size) for k, size in enumerate(sizes)]
        missing = [job for job in jobs if not job[0].exists()]
        drawn = draw_scenes([job[1:] for job in missing], tokenizer)
        for (path, *_), (images, objects, tokens) in zip(progress_bar(missing, desc="scenes"), drawn, strict=True):
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(file, latents=encode(vae, images, objects, device), tokens=tokens)
        self._parts = [_load([path for path, _, other in jobs if other == size], device) for size in SIZES_HW]
        self._shares = np.array([len(latents) for latents, _ in self._parts]) / (len(jobs) * _CHUNK)
        self._no_words = torch.tensor(_tokens([""], tokenizer)[0], device=device)

    def batch(self, rng: np.random.Generator, num: int, caption_dropout: float) -> tuple[Tensor, Tensor, Tensor]:
        """Scenes of one size: latents float32 [num, 4, h, w], share of objects per pixel [num, h, w], tokens [num, 77].

        Args:
            caption_dropout: share of the scenes whose caption is empty.
        """
        latents, tokens = self._parts[rng.choice(len(self._parts), p=self._shares)]
        device = latents.device
        rows = torch.from_numpy(rng.integers(len(latents), size=num)).to(device)
        wordings = torch.from_numpy(rng.integers(NUM_CAPTIONS, size=num)).to(device)
        dropped = torch.from_numpy(rng.random(num) < caption_dropout).to(device)
        words = torch.where(dropped[:, None], self._no_words, tokens[rows, wordings])
        encoded = latents[rows].float()
        return encoded[:, :4], encoded[:, 4], words.long()


def _load(paths: list[Path], device: torch.device) -> tuple[Tensor, Tensor]:
    latents, tokens = [], []
    for path in paths:
        with np.load(path) as chunk:
            latents.append(chunk["latents"])
            tokens.append(chunk["tokens"])
    return torch.from_numpy(np.concatenate(latents)).to(device), torch.from_numpy(np.concatenate(tokens)).to(device)


def draw_scenes(
    jobs: list[tuple[int, tuple[int, int]]], tokenizer: CLIPTokenizer
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Chunks of scenes, each from its first seed and its size: see `draw_chunk`."""
    draw = partial(draw_chunk, tokenizer=tokenizer, num=_CHUNK)
    num_workers = min(len(jobs) // 4, os.cpu_count() or 1)  # fewer chunks are drawn before workers have started
    if num_workers < 2:
        yield from map(draw, jobs)
        return
    # spawned: a forked process can hang in the thread pools that this one has started
    with multiprocessing.get_context("spawn").Pool(num_workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for start in range(0, len(jobs), num_workers):  # no more at once: a chunk is 65 MB of pixels
            yield from pool.map(draw, jobs[start : start + num_workers], chunksize=1)


def draw_chunk(
    job: tuple[int, tuple[int, int]], tokenizer: CLIPTokenizer, num: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [num, H, W, 3], objects bool [num, H, W] and the captions' tokens int16 [num, NUM_CAPTIONS, 77]."""
    first_seed, size_hw = job
    scenes = [sample_scene(first_seed + k) for k in range(num)]
    drawn = [render(scene, size_hw) for scene in scenes]
    captions = [caption(scene, k) for scene in scenes for k in range(NUM_CAPTIONS)]
    tokens = _tokens(captions, tokenizer).reshape(num, NUM_CAPTIONS, -1)
    return np.stack([one.image for one in drawn]), np.stack([one.masks.any(axis=0) for one in drawn]), tokens


def _tokens(captions: list[str], tokenizer: CLIPTokenizer) -> np.ndarray:
    return np.array(tokenizer(captions, padding="max_length", truncation=True).input_ids, np.int16)


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, objects: np.ndarray, device: torch.device) -> np.ndarray:
    """Latent means of images and, as a fifth channel, the share of objects: float16 [n, 5, H/8, W/8]."""
    encoded = []
    for start in range(0, len(images), 100):
        with torch.autocast(device.type, torch.bfloat16):
            part = to_tensor(images[start : start + 100]).to(device)
            latents = vae.encode(part).latent_dist.mean.float().cpu()
        inside = torch.from_numpy(objects[start : start + 100]).float()[:, None]
        encoded.append(torch.cat([latents, torch.nn.functional.adaptive_avg_pool2d(inside, latents.shape[-2:])], dim=1))
    return torch.cat(encoded).numpy().astype(np.float16)
