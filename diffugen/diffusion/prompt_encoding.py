"""Prompts with weights, and prompts longer than the text encoder reads: what compel adds to a pipeline.

Weights are compel's: `word++`, `word--`, `(some words)++`, `(some words)1.4`; A1111's `(some words:1.4)` means the
same. A prompt without any is never parsed: its brackets are letters like others. Long prompts are encoded in chunks
of whole words, each as long as the text encoder reads, and the UNet attends to all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode
from compel.embeddings_provider import BaseTextualInversionManager, EmbeddingsProvider
from compel.prompt_parser import FlattenedPrompt, Fragment, PromptParser
from pyparsing import ParseException
from torch import Tensor

from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError, reason_of

_A1111_WEIGHT = re.compile(r":\s*(\d*\.?\d+)\s*\)")
_WEIGHT = re.compile(r"[^\s+-](\++|--+)(?=[\s,.;:)]|$)|\)([+-]|\d*\.?\d)")  # a single "-" is a hyphen, except after ")"


def parse_weights(text: str) -> list[tuple[str, float]]:
    """A prompt's fragments and their weights, 1 where nothing is said; without markup the text itself.

    Raises:
        UserError: the markup is not understood, or is one of compel's other operators (and, blend, swap).
    """
    translated = _A1111_WEIGHT.sub(r")\1", text)
    if not _WEIGHT.search(translated):
        return [(text, 1.0)]
    try:
        parts = Compel.parse_prompt_string(translated).prompts
        children: list[Any] = parts[0].children if len(parts) == 1 and isinstance(parts[0], FlattenedPrompt) else [None]
    except (ParseException, PromptParser.ParsingException, ValueError) as error:
        raise UserError(
            f"the weights in prompt {text!r} are not understood ({reason_of(error)}); write word++ or (some words:1.4)"
        ) from None
    if not all(isinstance(child, Fragment) for child in children):
        raise UserError(f"prompt {text!r} uses more of compel than weights; write only word++ or (some words:1.4)")
    return [(child.text, child.weight) for child in children]


def without_weights(text: str) -> str:
    """The words of a prompt alone."""
    return " ".join(words for words, _ in parse_weights(text))


def expand_placeholders(tokenizer: Any, tokens: Sequence[str]) -> list[str]:
    """Replace `<x>` by `<x> <x>_1 <x>_2 ...` as far as the tokenizer knows them, as diffusers does."""
    added = tokenizer.added_tokens_encoder
    expanded = []
    for token in tokens:
        expanded.append(token)
        vector = 1
        while token in added and f"{token}_{vector}" in added:
            expanded.append(f"{token}_{vector}")
            vector += 1
    return expanded


def fragment_positions(tokenizer: Any, fragments: Sequence[str]) -> list[list[int]]:
    """Where the tokens of each fragment stand in the encoded prompt, the start token of chunk 0 being position 0."""
    marks = [float(number) for number in range(2, len(fragments) + 2)]  # start, end and padding have the weight 1
    _, weights, _ = _provider(tokenizer).get_token_ids_and_expand_weights(list(fragments), marks, device="cpu")
    return [torch.nonzero(weights == mark).flatten().tolist() for mark in marks]


def num_chunks(tokenizer: Any, text: str) -> int:
    """How many times the text encoder must run to read the whole prompt: 1, or more for a long one."""
    last = max((index for span in fragment_positions(tokenizer, _words(text)) for index in span), default=0)
    return last // tokenizer.model_max_length + 1


def needs_compel(pipe: Pipeline, text: str) -> bool:
    """Whether the plain pipeline would ignore weights in the prompt, or cut it."""
    return any(weight != 1 for _, weight in parse_weights(text)) or num_chunks(pipe.tokenizer, text) > 1


@torch.no_grad()
def encode_prompts(pipe: Pipeline, texts: Sequence[Sequence[tuple[str, float]]]) -> tuple[Tensor, Tensor | None]:
    """Encode prompts of any length with their weights.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        texts: the fragments of each prompt with their weights, as `parse_weights` gives them.

    Returns:
        [prompts, tokens, width], shorter prompts continued by the empty prompt; and for SDXL what its second
        encoder makes of each prompt's first chunk, [prompts, width], else None. SDXL's two encoders stand side
        by side in the width.
    """
    parts = [
        _encode(pipe, name, texts) for name in ("", "_2") if getattr(pipe, f"text_encoder{name}", None) is not None
    ]
    embeds = torch.cat([embeds for embeds, _ in parts], dim=-1)
    return embeds, parts[-1][1]


def _encode(pipe: Pipeline, name: str, texts: Sequence[Sequence[tuple[str, float]]]) -> tuple[Tensor, Tensor | None]:
    """`encode_prompts` for one of the text encoders."""
    is_xl = getattr(pipe, "text_encoder_2", None) is not None
    device = pipe._execution_device  # where the models run, also when they are offloaded
    kind = "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED" if is_xl else "LAST_HIDDEN_STATES_NORMALIZED"
    provider = _provider(getattr(pipe, f"tokenizer{name}"), getattr(pipe, f"text_encoder{name}"), device, kind)
    embeds = [
        provider.get_embeddings_for_weighted_prompt_fragments(
            [[words for words, _ in text]], [[weight for _, weight in text]], device=device
        )
        for text in texts
    ]
    embeds = Compel._pad_conditioning_tensors_to_same_length(embeds, provider.empty_z)
    if name != "_2":
        return torch.cat(embeds), None
    plain = [" ".join(words for words, _ in text) for text in texts]
    return torch.cat(embeds), provider.get_pooled_embeddings(plain, device=device)


class _Placeholders(BaseTextualInversionManager):
    """Expands placeholders of several vectors; compel's own way, through decoded text, can change other words."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def expand_textual_inversion_token_ids_if_necessary(self, token_ids: list[int]) -> list[int]:
        tokens = expand_placeholders(self.tokenizer, self.tokenizer.convert_ids_to_tokens(token_ids))
        return self.tokenizer.convert_tokens_to_ids(tokens)


def _provider(
    tokenizer: Any, encoder: Any = None, device: Any = "cpu", kind: str = "LAST_HIDDEN_STATES_NORMALIZED"
) -> EmbeddingsProvider:
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True  # it is cut in chunks
    return EmbeddingsProvider(
        tokenizer,
        encoder,
        _Placeholders(tokenizer),
        truncate=False,
        returned_embeddings_type=ReturnedEmbeddingsType[kind],
        device=device,
        split_long_text_mode=SplitLongTextMode.WORDS,
    )


def _words(text: str) -> list[str]:
    return [words for words, _ in parse_weights(text)]
