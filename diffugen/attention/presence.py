"""Is what a phrase names in the image at all? Whether knowing its words helps to denoise the image.

A diffusion model denoises an image better when its caption is right (Li et al. 2023, "Your Diffusion Model is
Secretly a Zero-Shot Classifier"). Here the caption is tried with and without one phrase, and the errors are compared
where the phrase is attended. Attention alone cannot tell: it is a softmax, and the words of an absent object look
somewhere as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffugen.attention.heatmaps import ImageAttention, mean_heats
from diffugen.batching import map_groups
from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.denoising import (
    encode_images,
    noise_schedule,
    prediction_target,
    prompt_conditions,
    shared_noise,
)
from diffugen.diffusion.overflow import check_finite
from diffugen.diffusion.prompt_batches import batchable_groups
from diffugen.diffusion.protocol import Pipeline
from diffugen.prompts.prompt import ObjectPhrase, Prompt

TIMESTEP_SHARES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""How much noise, in parts of the schedule: with less, words hardly matter; with more, the object is gone. Each has
noise of its own: many average it out."""


@dataclass(frozen=True)
class _Trial:
    """An image to denoise with a caption: the whole one, or without one phrase."""

    image_index: int
    prompt: Prompt
    left_out: ObjectPhrase | None


def with_presence(
    pipe: Pipeline,
    images: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    attention: Sequence[ImageAttention],
    *,
    seed: int = 0,
    batch_size: int = 8,
) -> list[ImageAttention]:
    """The attention of images, with the presence of each phrase filled in.

    Costs seven UNet passes per image and seven more per distinct phrase.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        images: uint8 RGB [H, W, 3], generated or real.
        prompts: the caption of each, with the objects to look for.
        attention: of each, with one heatmap per entry of `prompt.objects`.
        seed: of the noise.
        batch_size: trials that go through the model together; halved when the GPU runs out of memory.

    Returns:
        Per image its attention; `presence` is by how much the denoising error rises when the phrase is left out of
        the caption, relative to the error with it, where the phrase is attended; NaN for a phrase that is not among
        the caption's words.
    """
    trials = [trial for index, prompt in enumerate(prompts) for trial in _trials(index, prompt)]

    def run(numbers: Sequence[int]) -> Sequence[np.ndarray]:
        batch = [trials[number] for number in numbers]
        return list(denoising_errors(pipe, [images[t.image_index] for t in batch], [t.prompt for t in batch], seed))

    shapes = [images[trial.image_index].shape for trial in trials]
    groups = batchable_groups(pipe, [trial.prompt for trial in trials], AttentionConfig(), shapes)
    found = map_groups(groups, batch_size, run)
    errors = {(t.image_index, t.left_out): values for t, values in zip(trials, found, strict=True)}
    return [
        replace(one, presence=_presence(index, prompt, one, errors))
        for index, (prompt, one) in enumerate(zip(prompts, attention, strict=True))
    ]


def _trials(index: int, prompt: Prompt) -> Iterator[_Trial]:
    """An image with its whole caption, then without each phrase that is in it."""
    whole = replace(prompt, text=_plain(prompt.text), objects=(), negative_text="")
    yield _Trial(index, whole, None)
    for phrase in dict.fromkeys(prompt.objects):
        without = _without(prompt, phrase)
        if without != whole:
            yield _Trial(index, without, phrase)


def _presence(
    index: int, prompt: Prompt, attention: ImageAttention, errors: dict[tuple[int, ObjectPhrase | None], np.ndarray]
) -> np.ndarray:
    known = errors[index, None]
    rises = {
        phrase: float((heat * (errors[index, phrase] - known)).sum()) / max(float((heat * known).sum()), 1e-12)
        for phrase, heat in mean_heats(prompt.objects, attention).items()
        if (index, phrase) in errors
    }
    return np.array([rises.get(phrase, np.nan) for phrase in prompt.objects], np.float32)


@torch.no_grad()
def denoising_errors(pipe: Pipeline, images: Sequence[np.ndarray], prompts: Sequence[Prompt], seed: int) -> np.ndarray:
    """Squared errors of the UNet's prediction, the mean over channels and noise levels: float32 [n, h, w]."""
    schedule = noise_schedule(pipe)
    latents = encode_images(pipe, images)
    conditions = prompt_conditions(pipe, prompts, (latents.shape[2], latents.shape[3]))
    generator = torch.Generator("cpu").manual_seed(seed)
    total = torch.zeros_like(latents[:, 0], dtype=torch.float32)
    for share in TIMESTEP_SHARES:
        noise = shared_noise(latents, generator)
        steps = torch.full((len(latents),), int(share * schedule.config.num_train_timesteps), device=latents.device)
        noisy = schedule.add_noise(latents, noise, steps)
        predicted = pipe.unet(noisy, steps, **conditions, return_dict=False)[0].float()
        check_finite(predicted, "the UNet", pipe.unet.dtype)
        target = prediction_target(schedule, latents.float(), noise.float(), steps)
        total += (predicted[:, : target.shape[1]] - target).square().mean(1)
    return (total / len(TIMESTEP_SHARES)).cpu().numpy()


def _without(prompt: Prompt, phrase: ObjectPhrase) -> Prompt:
    """The prompt less the phrase wherever it stands, but not inside longer phrases: "a red car" keeps its "car"."""
    longer = sorted({other.text for other in prompt.objects if len(other.text) > len(phrase.text)}, key=len)
    alternatives = "|".join(re.escape(text) for text in [*reversed(longer), phrase.text])
    wanted = phrase.text.lower()

    def replaced(match: re.Match[str]) -> str:
        return "" if match[0].lower() == wanted else match[0]

    text = re.sub(rf"(?<!\w)(?:{alternatives})(?!\w)", replaced, prompt.text, flags=re.IGNORECASE)
    return replace(prompt, text=_plain(text), objects=(), negative_text="")


def _plain(text: str) -> str:
    return " ".join(text.split())
