"""Recording the attention to the phrases of prompts while a UNet runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from diffugen.attention.capture import Capture
from diffugen.attention.cross_attention import CrossAttentionCapture
from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.attention.model_defaults import attention_of_model
from diffugen.attention.self_attention import SelfAttentionCapture
from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.prompt_encoding import encode_prompts, fragment_positions, without_weights
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import class_prompt, content_token_indices, object_token_indices
from diffugen.prompts.prompt import Prompt


@dataclass
class Recorder:
    """The captures of one batch, and the prompts that they belong to.

    Attributes:
        prompts: one per row of the batch.
        token_indices: per row the positions of every phrase's tokens, the other content words last.
        cross_attention: of the phrases.
        self_attention: None where it is not wanted.
        timesteps: of the pipeline's run, once it has begun.
    """

    prompts: Sequence[Prompt]
    token_indices: Sequence[Sequence[Sequence[int]]]
    cross_attention: CrossAttentionCapture
    self_attention: SelfAttentionCapture | None
    timesteps: list[float] = field(default_factory=list)

    def pause(self, paused: bool) -> None:
        """Stop recording, or resume it."""
        for capture in self._captures():
            capture.active = not paused

    def reset(self) -> None:
        """Discard what has been recorded."""
        for capture in self._captures():
            capture.reset()

    def attention(self) -> list[ImageAttention]:
        """What was recorded, per row."""
        affinities = [None] * len(self.prompts) if self.self_attention is None else self.self_attention.maps()
        rows = zip(self.prompts, self.cross_attention.maps(), self.token_indices, affinities, strict=True)
        return [
            ImageAttention(
                heatmaps=tuple(map(Heatmap, [phrase.text for phrase in prompt.objects], heats)),
                rest=rest * len(positions[-1]),  # the capture gives means
                num_tokens=self.cross_attention.num_tokens,
                affinity=affinity,
            )
            for prompt, (*heats, rest), positions, affinity in rows
        ]

    def _captures(self) -> list[Capture]:
        return [self.cross_attention, *([] if self.self_attention is None else [self.self_attention])]


@contextmanager
def recording(
    pipe: Pipeline, prompts: Sequence[Prompt], latent_hw: tuple[int, int], settings: AttentionConfig
) -> Iterator[Recorder]:
    """Record the attention while the block runs the UNet.

    Args:
        pipe: the pipeline whose UNet runs.
        prompts: one per row of the batch.
        latent_hw: height and width of the latents.
        settings: what counts and is kept; what they leave to the model is taken from it. With `attend` "class_prompt"
            the image's queries meet the keys of another text, the phrases alone (Nguyen et al. 2023, "Dataset
            Diffusion"; Marcos-Manchón et al. 2024, "Open-Vocabulary Attention Maps"), so that nothing need be found in
            the prompt.

    Raises:
        UserError: a phrase is not in its prompt, or the self-attention asked for is too large.
    """
    settings = attention_of_model(settings, pipe)
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
    blocks, factors, factor = settings.blocks, settings.factors, settings.self_attention_factor
    assert blocks is not None and factors is not None  # filled in above
    cross_attention = CrossAttentionCapture(
        pipe.unet, token_indices, latent_hw, factors=factors, blocks=blocks, text=text
    )
    self_attention = None
    if factor:
        self_attention = SelfAttentionCapture(pipe.unet, len(prompts), latent_hw, factor, blocks)
    with cross_attention, self_attention or nullcontext():
        yield Recorder(prompts, token_indices, cross_attention, self_attention)


def _class_positions(tokenizer: Any, prompt: Prompt, fragments: Sequence[str]) -> list[list[int]]:
    """Positions of every object's words and of the rest, the last fragment, in the class prompt."""
    positions = fragment_positions(tokenizer, fragments)
    of_phrase = dict(zip(fragments, positions, strict=True))
    return [*(of_phrase[without_weights(phrase.text)] for phrase in prompt.objects), positions[-1]]
