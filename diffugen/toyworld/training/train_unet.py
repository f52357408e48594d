"""Stage two of the toy pipeline: the denoiser and its text encoder, trained together on encoded scenes.

The models see images and captions only: attention that localises is something they learn by themselves, as Stable
Diffusion does. The loss counts the pixels of objects more than those behind them, since a small budget would else be
spent on skies; nothing ever says which words an object belongs to.
"""

from __future__ import annotations

import copy
import logging
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTokenizer

from diffugen.files import atomic_path
from diffugen.images import write_png
from diffugen.progress import progress_bar
from diffugen.toyworld.training.checkpoint import load_checkpoint, save_checkpoint
from diffugen.toyworld.training.cuda_graph import CudaGraph
from diffugen.toyworld.training.latents import LatentCache
from diffugen.toyworld.training.model import build_pipeline, build_scheduler, build_text_encoder, build_unet
from diffugen.toyworld.training.muon import Muon, is_hidden

log = logging.getLogger(__name__)

_PEAK_RATE = 2e-3  # of Muon, which trains nearly all weights
_ADAMW_RATE = 1e-3  # of the embeddings, norms, biases, first and last layers
_WARMUP_STEPS = 200
_OBJECT_WEIGHT = 5.0  # what a pixel of an object counts beyond one of the background
_CAPTION_DROPOUT = 0.1  # for classifier-free guidance
_MIN_SNR_GAMMA = 5.0  # Hang et al., 2023
_EMA_DECAY = 0.999
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
    save_every: int,
    device: torch.device,
    seed: int = 0,
    start_from: StableDiffusionPipeline | None = None,
    cuda_graph: bool = True,
) -> None:
    """Train (or go on training) until `num_images` were seen; leaves the pipeline of averaged weights in out/pipeline.

    The rate is constant, then falls to zero over the last `decay_fraction`: a training that was stopped can be
    finished early or prolonged by starting it again with another `num_images`. With `start_from` the first weights
    are those of an earlier training instead of random ones.
    """
    torch.manual_seed(seed)
    cache = LatentCache(out / "latents", vae, tokenizer, num_scenes=num_scenes, device=device, seed=seed)
    models = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}).to(device)
    if start_from is not None:
        models["unet"].load_state_dict(start_from.unet.state_dict())
        models["text_encoder"].load_state_dict(start_from.text_encoder.state_dict())
    average = copy.deepcopy(models)
    if device.type == "cpu":
        models["unet"].set_attn_processor(PlainAttention())
    optimizers = build_optimizers(models, device)
    state = {"models": models, "average": average, **optimizers}
    step, losses = load_checkpoint(out / "unet.pt", state, device)
    num_steps = num_images // batch_size
    noise = DDPMScheduler.from_config(build_scheduler().config)
    noise.alphas_cumprod = noise.alphas_cumprod.to(device)
    take_step: Any = partial(train_step, models, optimizers, noise)
    if device.type == "cuda" and cuda_graph:
        take_step = CudaGraph(take_step)
    recent: list[Tensor] = []  # read only where all of them are needed: reading makes a GPU wait
    progress = progress_bar(range(step, num_steps), desc="denoiser", initial=step, total=num_steps, mininterval=10)
    first, start = step, time.perf_counter()
    for step in progress:
        set_rates(optimizers, rate(step, num_steps, decay_fraction))
        batch = cache.batch(np.random.default_rng([seed, step]), batch_size, _CAPTION_DROPOUT)
        recent.append(take_step(*batch, *(draw.to(device) for draw in draw_noise(batch[0].shape, noise, seed + step))))
        update_average(average, models, min(_EMA_DECAY, (1 + step) / (10 + step)))
        if (step + 1) % save_every == 0 or step + 1 == num_steps:
            losses.extend(torch.stack(recent).tolist())
            recent.clear()
            save_checkpoint(out / "unet.pt", state, step + 1, losses)
            progress.set_postfix(loss=f"{np.mean(losses[-200:]):.4f}")
            pipe = build_pipeline(vae, average["unet"], average["text_encoder"], tokenizer)
            save_pipeline(pipe, out / "pipeline")
            write_sheet(pipe, out / "sheets" / f"{(step + 1) * batch_size:08d}.png")
            speed = (step + 1 - first) * batch_size / (time.perf_counter() - start)
            log.info("%d images, %.0f per second", (step + 1) * batch_size, speed)
            np.savetxt(out / "losses.csv", np.array(losses), fmt="%.5f", header="denoiser loss by step", comments="")


def rate(step: int, num_steps: int, decay_fraction: float) -> float:
    """Warm-up, constant, linear decay to zero: a factor in [0, 1]."""
    return min(1.0, (step + 1) / _WARMUP_STEPS, (num_steps - step) / max(1.0, decay_fraction * num_steps))


def build_optimizers(models: torch.nn.ModuleDict, device: torch.device) -> dict[str, torch.optim.Optimizer]:
    """Muon for the hidden weights, AdamW for the others; their rates are tensors, as a CUDA graph needs them."""
    hidden = [weight for name, weight in models.named_parameters() if is_hidden(name, weight)]
    others = [weight for name, weight in models.named_parameters() if not is_hidden(name, weight)]
    rates = [torch.tensor(peak, device=device) for peak in (_PEAK_RATE, _ADAMW_RATE)]
    on_gpu = device.type == "cuda"
    return {
        "muon": Muon(hidden, rates[0]),
        "adamw": torch.optim.AdamW(
            others, rates[1], betas=(0.9, 0.99), weight_decay=0.01, fused=on_gpu, capturable=on_gpu
        ),
    }


def set_rates(optimizers: dict[str, torch.optim.Optimizer], factor: float) -> None:
    """Set every optimizer's rate to `factor` of its peak."""
    for name, peak in (("muon", _PEAK_RATE), ("adamw", _ADAMW_RATE)):
        for group in optimizers[name].param_groups:
            group["lr"].fill_(factor * peak)


def draw_noise(shape: torch.Size, noise: DDPMScheduler, seed: int) -> tuple[Tensor, Tensor]:
    """Timesteps [n] and Gaussian noise of `shape`, drawn on the CPU, so that they are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    # one timestep per stratum: the same distribution as independent draws, with a steadier loss
    strata = (torch.arange(shape[0]) + torch.rand(shape[0], generator=generator)) / shape[0]
    return (strata * noise.config.num_train_timesteps).long(), torch.randn(shape, generator=generator)


def train_step(
    models: torch.nn.ModuleDict,
    optimizers: dict[str, torch.optim.Optimizer],
    noise: DDPMScheduler,
    latents: Tensor,
    objects: Tensor,
    tokens: Tensor,
    timesteps: Tensor,
    epsilon: Tensor,
) -> Tensor:
    """One step of v-prediction with clipped gradients; returns the weighted loss.

    Args:
        latents: float32 [n, 4, h, w].
        objects: float32 [n, h, w], the share of objects in each latent pixel.
        tokens: int64 [n, 77], captions.
        timesteps: int64 [n].
        epsilon: float32 [n, 4, h, w], noise.
    """
    models.zero_grad()
    noisy = noise.add_noise(latents, epsilon, timesteps)
    target = noise.get_velocity(latents, epsilon, timesteps)
    # no cache of cast weights: a recorded step would go on with those of its recording
    with torch.autocast(latents.device.type, torch.bfloat16, cache_enabled=False):
        predicted = models["unet"](noisy, timesteps, models["text_encoder"](tokens)[0]).sample
    weight = loss_weight(noise.alphas_cumprod[timesteps])[:, None, None] * pixel_weight(objects)
    loss = (weight * (predicted.float() - target).square().mean(dim=1)).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
    for optimizer in optimizers.values():
        optimizer.step()
    return loss.detach()


class PlainAttention:
    """Attention as two products and a softmax: on a CPU faster than the fused kernel, above all its gradient."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        query, key, value = (side.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for side in projected)
        with torch.autocast(query.device.type, enabled=False):  # which would make the softmax float32
            probabilities = torch.softmax((query * attn.scale) @ key.transpose(-1, -2), dim=-1)
            attended = (probabilities @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](attended))


def pixel_weight(objects: Tensor) -> Tensor:
    """What each latent pixel counts, [n, h, w]: more inside objects; the mean over an image is 1."""
    weight = 1 + _OBJECT_WEIGHT * objects
    return weight / weight.mean(dim=(1, 2), keepdim=True)


def loss_weight(alphas_cumprod: Tensor) -> Tensor:
    """The root of min-SNR's weights for v-prediction, bounded below.

    min-SNR itself hardly teaches at high noise, where an object's outline is decided, and not at all at zero SNR,
    where the overall brightness of a scene is.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return (snr.clamp(max=_MIN_SNR_GAMMA) / (snr + 1)).clamp(min=0.1).sqrt()


@torch.no_grad()
def update_average(average: torch.nn.Module, models: torch.nn.Module, decay: float) -> None:
    """Exponential moving average of the weights."""
    torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - decay)


SHIPPED = Path(__file__).parents[1] / "weights" / "pipeline"

MEASURED_FILES = ("attention.json", "suggested.json")
"""What was measured about the pipeline: the attention to read labels from (docs/labels.md), settings that suit it."""


def save_pipeline(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Save as fp16 safetensors, in a folder that `StableDiffusionPipeline.from_pretrained` loads as it is.

    The small text encoder stays in fp32: transformers loads a model in the dtype of its file, diffusers in fp32.
    """
    vae, unet = (copy.deepcopy(part).half() for part in (pipe.vae, pipe.unet))
    half = build_pipeline(vae, unet, pipe.text_encoder, pipe.tokenizer)
    with atomic_path(folder) as temporary:
        half.save_pretrained(temporary)
        for name in MEASURED_FILES:
            shutil.copy(SHIPPED / name, temporary / name)


def write_sheet(pipe: StableDiffusionPipeline, path: Path) -> None:
    """A picture of what the model draws now, one image per sheet prompt, always from the same seeds."""
    generators = [torch.Generator().manual_seed(k) for k in range(len(SHEET_PROMPTS))]
    images = pipe(
        list(SHEET_PROMPTS), num_inference_steps=15, guidance_scale=4.0, generator=generators, output_type="np",
        height=128, width=128,
    ).images  # fmt: skip
    rows = np.array(images).reshape(3, 4, *images[0].shape)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    write_png(path, (sheet * 255).round().astype(np.uint8))
