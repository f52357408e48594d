"""Stage two of the toy pipeline: the denoiser and its text encoder, trained together on encoded scenes.

The models see images and captions only, never a mask: attention that localises is something they learn
by themselves, as Stable Diffusion does.
"""

from __future__ import annotations

import copy
import logging
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm
from transformers import CLIPTokenizer

from ..files import atomic_path
from .captions import caption
from .checkpoint import load_checkpoint, save_checkpoint
from .latents import LatentCache
from .model import build_pipeline, build_scheduler, build_text_encoder, build_unet
from .scene import sample_scene

log = logging.getLogger(__name__)

_PEAK_RATE = 1.2e-3
_WARMUP_STEPS = 200
_CAPTION_DROPOUT = 0.1  # for classifier-free guidance
_MIN_SNR_GAMMA = 5.0  # Hang et al., 2023
_EMA_DECAY = 0.999
_SAVE_EVERY = 500
SHEET_PROMPTS = (
    "a photo of a red car in a city by day",
    "a photo of a yellow bus in a desert at sunset",
    "a photo of a blue house in a snowfield",
    "a photo of a sheep and a green tree in a village",
    "a picture of a purple tent in a forest at night",
    "a photo of an orange cone on a beach in the rain",
    "a photo of a white rocket and a red mushroom",
    "a photo of a snowman in a snowfield in snow",
    "a photo of a boat on a beach",
    "a photo of a black truck in a city at night",
    "a photo of a pink bench and a brown barrel",
    "a photo of a cactus in a desert",
)


def train_unet(
    out: Path,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    *,
    num_scenes: int,
    num_images: int,
    decay_fraction: float,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
) -> None:
    """Train (or go on training) until `num_images` were seen; leaves the pipeline of averaged weights in out/pipeline.

    The rate is constant, then falls to zero over the last `decay_fraction`: a training that was stopped can be
    finished early or prolonged by starting it again with another `num_images`.
    """
    torch.manual_seed(seed)
    cache = LatentCache(out / "latents", vae, num_scenes=num_scenes, device=device, seed=seed)
    models = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}).to(device)
    average = copy.deepcopy(models)
    optimizer = torch.optim.AdamW(models.parameters(), _PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    state = {"models": models, "average": average, "optimizer": optimizer}
    step, losses = load_checkpoint(out / "unet.pt", state, device)
    num_steps = num_images // batch_size
    noise = DDPMScheduler.from_config(build_scheduler().config)
    progress = tqdm(range(step, num_steps), desc="denoiser", initial=step, total=num_steps, mininterval=10)
    for step in progress:
        optimizer.param_groups[0]["lr"] = _PEAK_RATE * rate(step, num_steps, decay_fraction)
        rng = np.random.default_rng([seed, step])
        latents, scene_seeds = cache.batch(rng, batch_size)
        captions = [caption(sample_scene(int(s)), int(rng.integers(2**31))) for s in scene_seeds]
        captions = [text if rng.random() >= _CAPTION_DROPOUT else "" for text in captions]
        losses.append(train_step(models, optimizer, noise, tokenizer, latents.to(device), captions, seed + step))
        update_average(average, models, min(_EMA_DECAY, (1 + step) / (10 + step)))
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == num_steps:
            save_checkpoint(out / "unet.pt", state, step + 1, losses)
            progress.set_postfix(loss=f"{np.mean(losses[-200:]):.4f}")
            pipe = build_pipeline(vae, average["unet"], average["text_encoder"], tokenizer)
            save_pipeline(pipe, out / "pipeline")
            write_sheet(pipe, out / "sheets" / f"{(step + 1) * batch_size:08d}.png")
            np.savetxt(out / "losses.csv", np.array(losses), fmt="%.5f", header="denoiser loss by step", comments="")


def rate(step: int, num_steps: int, decay_fraction: float) -> float:
    """Warm-up, constant, linear decay to zero: a factor in [0, 1]."""
    return min(1.0, (step + 1) / _WARMUP_STEPS, (num_steps - step) / max(1.0, decay_fraction * num_steps))


def train_step(
    models: torch.nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    noise: DDPMScheduler,
    tokenizer: CLIPTokenizer,
    latents: torch.Tensor,
    captions: list[str],
    seed: int,
) -> float:
    """One step of v-prediction with min-SNR weights; returns the weighted loss."""
    generator = torch.Generator().manual_seed(seed)
    num = len(latents)
    # one timestep per stratum: the same distribution as independent draws, with a steadier loss
    strata = (torch.arange(num) + torch.rand(num, generator=generator)) / num
    timesteps = (strata * noise.config.num_train_timesteps).long().to(latents.device)
    epsilon = torch.randn(latents.shape, generator=generator).to(latents.device)
    noisy = noise.add_noise(latents, epsilon, timesteps)
    target = noise.get_velocity(latents, epsilon, timesteps)
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    # on a CPU plain attention is the faster one at 16x16, above all its gradient
    on_cpu = latents.device.type == "cpu"
    with sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
        with torch.autocast(latents.device.type, torch.bfloat16):
            words = models["text_encoder"](tokens.to(latents.device))[0]
            predicted = models["unet"](noisy, timesteps, words).sample
        weight = loss_weight(noise.alphas_cumprod.to(latents.device)[timesteps])
        loss = (weight[:, None, None, None] * (predicted.float() - target).square()).mean()
        loss.backward()
    torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def loss_weight(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """min-SNR weights for v-prediction, bounded below: at zero SNR they would vanish, and with them the only
    lesson about the overall brightness of a scene."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return (snr.clamp(max=_MIN_SNR_GAMMA) / (snr + 1)).clamp(min=0.1)


@torch.no_grad()
def update_average(average: torch.nn.Module, models: torch.nn.Module, decay: float) -> None:
    """Exponential moving average of the weights."""
    torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - decay)


def save_pipeline(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Save as fp16 safetensors, in a folder that `StableDiffusionPipeline.from_pretrained` loads as it is.

    The small text encoder stays in fp32: transformers loads a model in the dtype of its file, diffusers in fp32.
    """
    vae, unet = (copy.deepcopy(part).half() for part in (pipe.vae, pipe.unet))
    half = build_pipeline(vae, unet, pipe.text_encoder, pipe.tokenizer)
    with atomic_path(folder) as temporary:
        half.save_pretrained(temporary)


def write_sheet(pipe: StableDiffusionPipeline, path: Path) -> None:
    """A picture of what the model draws now, one image per sheet prompt, always from the same seeds."""
    generators = [torch.Generator().manual_seed(k) for k in range(len(SHEET_PROMPTS))]
    images = pipe(
        list(SHEET_PROMPTS), num_inference_steps=15, guidance_scale=4.0, generator=generators, output_type="np",
        height=128, width=128,
    ).images  # fmt: skip
    rows = np.array(images).reshape(3, 4, *images[0].shape)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (sheet[:, :, ::-1] * 255).round().astype(np.uint8))
