"""Stage one of the toy pipeline: the autoencoder, trained on crops of rendered scenes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from diffugen.progress import progress_bar
from diffugen.toyworld.render import render
from diffugen.toyworld.scene import sample_scene
from diffugen.toyworld.training.checkpoint import load_checkpoint, save_checkpoint
from diffugen.toyworld.training.model import build_vae

log = logging.getLogger(__name__)

CROP = 64  # the network is convolutional, so crops teach it whole images at a quarter of the cost
POOL = 3000  # scenes that the crops are cut from
_KL_WEIGHT = 1e-7  # more closes latent channels for good
_PEAK_RATE = 1.5e-3
_LATENT_NOISE = 0.05


def train_vae(out: Path, *, num_crops: int, batch_size: int, device: torch.device, seed: int = 0) -> AutoencoderKL:
    """Train (or go on training) the autoencoder; the checkpoint is out/vae.pt.

    Loss: L1 + L2 in pixels + a small KL term. Latents are normalised at the end, see `normalise_latents`.
    """
    torch.manual_seed(seed)
    vae = build_vae().to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), _PEAK_RATE, weight_decay=0.01)
    state = {"vae": vae, "optimizer": optimizer}
    path = out / "vae.pt"
    done, losses = load_checkpoint(path, state, device)
    num_steps = num_crops // batch_size
    if done >= num_steps:
        return vae.eval()
    pool = render_pool(POOL, seed)
    for step in progress_bar(range(done, num_steps), desc="autoencoder", initial=done, total=num_steps):
        optimizer.param_groups[0]["lr"] = _PEAK_RATE * _one_cycle(step / num_steps)
        losses.append(_train_step(vae, optimizer, _crops(pool, batch_size, (seed, step)).to(device), (seed, step)))
        if (step + 1) % 500 == 0 or step + 1 == num_steps:
            if step + 1 == num_steps:
                normalise_latents(vae, _crops(pool, 256, (seed, 0)).to(device))
            save_checkpoint(path, state, step + 1, losses)
            log.info("autoencoder step %d: loss %.4f", step + 1, float(np.mean(losses[-200:])))
    return vae.eval()


def render_pool(num: int, seed: int) -> np.ndarray:
    """Rendered scenes, uint8 [num, 128, 128, 3]."""
    scenes = (render(sample_scene(900_000_000 + seed * num + k)) for k in range(num))
    return np.stack([scene.image for scene in progress_bar(scenes, desc="scenes for the autoencoder", total=num)])


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [n, H, W, 3] in [0, 255] -> float32 [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _crops(pool: np.ndarray, num: int, seed: tuple[int, int]) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    height, width = pool.shape[1:3]
    corners = zip(rng.integers(len(pool), size=num), rng.integers(height - CROP + 1, size=num),
                  rng.integers(width - CROP + 1, size=num), strict=True)  # fmt: skip
    return to_tensor(np.stack([pool[k, y : y + CROP, x : x + CROP] for k, y, x in corners]))


def _one_cycle(progress: float) -> float:
    """Linear warm-up over the first 5 %, then a cosine to zero."""
    return min(1.0, progress / 0.05 + 0.02) * (0.5 + 0.5 * float(np.cos(np.pi * progress)))


def _train_step(
    vae: AutoencoderKL, optimizer: torch.optim.Optimizer, images: torch.Tensor, seed: tuple[int, int]
) -> float:
    torch.manual_seed(seed[0] + seed[1])  # of the posterior's samples
    with torch.autocast(images.device.type, torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    return _descend(vae, optimizer, decoded.float() - images, _KL_WEIGHT * posterior.kl().mean())


def _descend(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, error: torch.Tensor, penalty: torch.Tensor | float = 0.0
) -> float:
    """One step down L1 + L2 of the error in pixels, and a penalty; returns the mean absolute error."""
    loss = error.abs().mean() + error.square().mean() + penalty
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(error.detach().abs().mean())


def polish_decoder(
    out: Path, vae: AutoencoderKL, *, num_crops: int, batch_size: int, device: torch.device, seed: int = 0
) -> AutoencoderKL:
    """Go on training the decoder alone; the checkpoint is out/decoder.pt.

    The latents stay as they are, so this may run beside the denoiser's training. The decoder sees what it will be
    given: latent means, which the denoiser misses by a little.
    """
    vae.requires_grad_(False)
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), _PEAK_RATE, weight_decay=0.01)
    state = {"decoder": decoder, "optimizer": optimizer}
    path, num_steps = out / "decoder.pt", num_crops // batch_size
    done, losses = load_checkpoint(path, state, device)
    pool = render_pool(POOL, seed) if done < num_steps else np.zeros(0)
    for step in progress_bar(range(done, num_steps), desc="decoder", initial=done, total=num_steps):
        optimizer.param_groups[0]["lr"] = _PEAK_RATE * _one_cycle(step / num_steps)
        images = _crops(pool, batch_size, (seed + 1, step)).to(device)
        torch.manual_seed(seed + step)
        with torch.autocast(device.type, torch.bfloat16):
            latents = vae.encode(images).latent_dist.mean
            decoded = vae.decode(latents + _LATENT_NOISE * torch.randn_like(latents)).sample
        losses.append(_descend(decoder, optimizer, decoded.float() - images))
        if (step + 1) % 500 == 0 or step + 1 == num_steps:
            save_checkpoint(path, state, step + 1, losses)
            log.info("decoder step %d: loss %.4f", step + 1, float(np.mean(losses[-200:])))
    return vae.eval()


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Give every latent channel zero mean and unit variance, exactly undone before decoding.

    The affine map is folded into quant_conv and post_quant_conv, so the folder needs no scaling factor.
    """
    latents = vae.encode(images).latent_dist.mean
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    num = len(mean)
    after, before = vae.quant_conv, vae.post_quant_conv
    after.bias[:num] -= mean
    after.weight[:num] /= std[:, None, None, None]
    after.bias[:num] /= std
    after.bias[num:] -= 2 * std.log()
    before.bias += before.weight[:, :, 0, 0] @ mean
    before.weight *= std[None, :, None, None]
