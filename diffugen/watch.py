"""Watching a UNet while it runs: from prompts to what of its attention is captured, and back to nouns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from diffugen.affinity import AffinityCapture
from diffugen.capture import AttentionCapture
from diffugen.config import AttentionConfig
from diffugen.heatmaps import Heatmap, ImageAttention
from diffugen.prompt_encoding import encode_prompts, fragment_positions, without_weights
from diffugen.prompts import Prompt
from diffugen.tokens import class_prompt, content_token_indices, object_token_indices


@contextmanager
def watch(
    pipe: Any, prompts: Sequence[Prompt], latent_hw: tuple[int, int], settings: AttentionConfig
) -> Iterator[Callable[[], list[ImageAttention]]]:
    """Look at the attention while the block runs the UNet; afterwards the yielded function gives it.

    Args:
        pipe: the pipeline whose UNet runs.
        prompts: one per row of the batch.
        latent_hw: height and width of the latents.
        settings: what counts and is kept. With `attend` "class_prompt" the image's queries meet the keys of
            another text, the phrases alone (Nguyen et al. 2023, "Dataset Diffusion"; Marcos-Manchón et al.
            2024, "Open-Vocabulary Attention Maps"), so that nothing need be found in the prompt.

    Raises:
        ConfigError: a phrase is not in its prompt, or the self-attention asked for is too large.
    """
    text = None
    if settings.attend == "class_prompt":
        texts = [class_prompt(prompt) for prompt in prompts]
        text, _ = encode_prompts(pipe, [[(words, 1.0) for words in fragments] for fragments in texts])
        token_indices = [_class_positions(pipe.tokenizer, *pair) for pair in zip(prompts, texts, strict=True)]
    else:
        token_indices = [
            [*object_token_indices(pipe.tokenizer, prompt), content_token_indices(pipe.tokenizer, prompt)]
            for prompt in prompts
        ]
    blocks = settings.attention_blocks
    cross = AttentionCapture(
        pipe.unet, token_indices, latent_hw, factors=settings.attention_factors, blocks=blocks, text=text
    )
    own = (
        nullcontext()
        if settings.self_attention_factor is None
        else AffinityCapture(pipe.unet, len(prompts), latent_hw, settings.self_attention_factor, blocks)
    )

    def attention() -> list[ImageAttention]:
        affinities = own.maps() if isinstance(own, AffinityCapture) else [None] * len(prompts)
        rows = zip(prompts, cross.maps(), token_indices, affinities, strict=True)
        return [
            ImageAttention(
                heatmaps=tuple(map(Heatmap, [phrase.text for phrase in prompt.objects], heats)),
                rest=rest * len(positions[-1]),  # the capture gives means
                num_tokens=cross.num_tokens,
                affinity=affinity,
            )
            for prompt, (*heats, rest), positions, affinity in rows
        ]

    with cross, own:
        yield attention


def _class_positions(tokenizer: Any, prompt: Prompt, fragments: Sequence[str]) -> list[list[int]]:
    """Positions of every object's words and of the rest, the last fragment, in the class prompt."""
    positions = fragment_positions(tokenizer, fragments)
    of_phrase = dict(zip(fragments, positions, strict=True))
    return [*(of_phrase[without_weights(phrase.text)] for phrase in prompt.objects), positions[-1]]
