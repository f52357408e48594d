"""The toy denoiser's step, recorded as a CUDA graph, against the step as it is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from diffusers import DDPMScheduler

from diffugen.toyworld.scene import TRAINING_KINDS
from diffugen.toyworld.training import train_unet
from diffugen.toyworld.training.cuda_graph import CudaGraph
from diffugen.toyworld.training.model import build_scheduler, build_text_encoder, build_tokenizer, build_unet

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")]
CUDA = torch.device("cuda")


@pytest.mark.parametrize("steps", [12])
def test_a_recorded_step_learns_what_the_step_learns(steps: int) -> None:
    """Two sizes in turn, so that there are two recordings of one model."""
    losses = {}
    for recorded in (False, True):
        torch.manual_seed(0)
        tokenizer = build_tokenizer(TRAINING_KINDS)
        models = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}).to(CUDA)
        optimizers = train_unet.build_optimizers(models, CUDA)
        train_unet.set_rates(optimizers, 1.0)
        noise = DDPMScheduler.from_config(build_scheduler().config)
        noise.alphas_cumprod = noise.alphas_cumprod.to(CUDA)
        step = partial(train_unet.train_step, models, optimizers, noise)
        take_step = CudaGraph(step) if recorded else step
        losses[recorded] = []
        for number in range(steps):
            size = (16, 16) if number % 2 else (12, 20)
            latents = torch.randn((4, 4, *size), generator=torch.Generator().manual_seed(number)).to(CUDA)
            tokens = torch.randint(len(tokenizer), (4, 77), generator=torch.Generator().manual_seed(number)).to(CUDA)
            draws = (draw.to(CUDA) for draw in train_unet.draw_noise(latents.shape, noise, number))
            losses[recorded].append(float(take_step(latents, torch.ones(4, *size, device=CUDA), tokens, *draws)))
    assert losses[True] == pytest.approx(losses[False], rel=0.05)
    assert losses[True][-1] != losses[True][-3]
