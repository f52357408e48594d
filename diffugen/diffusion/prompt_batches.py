"""How a pipeline is given a batch's prompts, and which prompts may share a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.prompt_encoding import encode_prompts, needs_compel, num_chunks, parse_weights
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import class_prompt
from diffugen.prompts.prompt import Prompt


def text_inputs(pipe: Pipeline, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The pipeline's arguments for the texts of prompts that may share a batch."""
    negatives = [prompt.negative_text for prompt in prompts]
    if not _by_compel(pipe, prompts[0]):
        texts = [prompt.text for prompt in prompts]
        return {"prompt": texts, "negative_prompt": negatives if any(negatives) else None}
    every = [parse_weights(text) for text in (*(prompt.text for prompt in prompts), *negatives)]
    embeds, pooled = encode_prompts(pipe, every)
    inputs = dict(zip(("prompt_embeds", "negative_prompt_embeds"), embeds.chunk(2), strict=True))
    if pooled is not None:
        inputs |= zip(("pooled_prompt_embeds", "negative_pooled_prompt_embeds"), pooled.chunk(2), strict=True)
    if _zeros_for_no_negative(pipe, prompts[0]):
        inputs |= {name: torch.zeros_like(value) for name, value in inputs.items() if name.startswith("negative_")}
    return inputs


def _by_compel(pipe: Pipeline, prompt: Prompt) -> bool:
    return needs_compel(pipe, prompt.text) or needs_compel(pipe, prompt.negative_text)


def _zeros_for_no_negative(pipe: Pipeline, prompt: Prompt) -> bool:
    """SDXL does not encode a negative prompt that is not there."""
    return not prompt.negative_text and bool(pipe.config.get("force_zeros_for_empty_prompt"))


def batchable_groups(
    pipe: Pipeline, prompts: Sequence[Prompt], settings: AttentionConfig, shapes: Sequence[Any] | None = None
) -> list[list[int]]:
    """Indices of the prompts that may run in one batch without any changing another's image or attention."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        texts = [prompt.text, prompt.negative_text]
        if settings.attend == "class_prompt":
            texts.append(" ".join(class_prompt(prompt)))
        lengths = [num_chunks(pipe.tokenizer, text) for text in texts]
        kind = _by_compel(pipe, prompt), _zeros_for_no_negative(pipe, prompt)
        groups[(shapes[index] if shapes else None, max(lengths[:2]), *lengths[2:], *kind)].append(index)
    return list(groups.values())
