"""How much every pixel of the photos counts in the loss: most where the object is, found without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffugen.attention.extract import read_attention
from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.protocol import Pipeline
from diffugen.prompts.prompt import ObjectPhrase, Prompt


def object_weights(
    pipe: Pipeline, images: Sequence[np.ndarray], template: str, word: str, emphasis: float, settings: AttentionConfig
) -> Tensor:
    """Weights of the denoising loss from the model's own cross-attention to a word for something similar.

    Unweighted, a small object has a small part in the loss, and the token learns light and weather instead. The
    losses of Break-A-Scene (Avrahami et al., 2023) are masked for the same reason, there by the user's masks.

    Args:
        pipe: the pipeline, which knows `word`.
        images: uint8 RGB [H, W, 3], all of one size.
        template: caption of the images with {} for the word.
        word: what the model already has a word for: the concept's initialiser.
        emphasis: the object's most attended pixel counts 1 + this times as much as the least attended one.
        settings: what of the attention counts.

    Returns:
        float32 [n, 1, h, w] at the latents' size; the mean over each image is 1.
    """
    prompt = Prompt(template.format(word), (ObjectPhrase(word, word),))
    attention = read_attention(pipe, images, [prompt] * len(images), settings)
    heat = torch.from_numpy(np.stack([one.heatmaps[0].values for one in attention]))[:, None]
    low, high = heat.amin((2, 3), keepdim=True), heat.amax((2, 3), keepdim=True)
    weights = 1 + emphasis * (heat - low) / (high - low).clamp(min=torch.finfo(heat.dtype).tiny)
    return weights / weights.mean((2, 3), keepdim=True)
