"""Labels of real images by the attention of a diffusion model to the words that it looks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffugen.attention.decoder import check_decoder
from diffugen.attention.extract import read_attention
from diffugen.config.loader import validate
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, ModelConfig
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.diffusion.tokens import check_prompt
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.prompts.prompt import ObjectPhrase, Prompt


class PhotoAttentionLabeler:
    """Labels from the attention with which a diffusion model reads an image and its caption.

    Args:
        model: pipeline folder, .safetensors file or hub id.
        embeddings: files of learned tokens.
        prompt: the caption of every image, with the objects to look for.
        device: where the model runs.
        label: how attention becomes instances.
        decoder: file of a decoder learned from drawn masks, see `diffugen.attention.decoder`.

    Raises:
        UserError: the model cannot be loaded, or the caption does not fit it.
    """

    name = "attention"

    def __init__(
        self,
        model: str,
        embeddings: Sequence[Path],
        prompt: Prompt,
        device: str = "auto",
        label: AttentionLabelConfig = AttentionLabelConfig(),  # noqa: B008 (immutable)
        decoder: Path | None = None,
    ) -> None:
        values = {"path": model, "embeddings": [str(path) for path in embeddings], "device": device}
        self.pipe = load_pipeline(validate(values, ModelConfig))
        check_prompt(self.pipe, prompt)
        if decoder is not None:
            check_decoder(decoder, self.pipe)
        self.prompt = prompt
        self.attention = AttentionConfig(presence=True, decoder=decoder)
        self.class_names = list(dict.fromkeys(phrase.class_name for phrase in prompt.objects))
        self.labeler = AttentionLabeler(self.class_names, label, device=device)

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input; what they may bring along is not looked at."""
        images = [at_most_native(item.image, self.pipe) for item in inputs]
        read = read_attention(self.pipe, images, [self.prompt] * len(images), self.attention)
        return self.labeler.label(
            [
                LabelInput(image=item.image, prompt=self.prompt, attention=attention)
                for item, attention in zip(inputs, read, strict=True)
            ]
        )


def caption_prompt(objects: Sequence[str], text: str | None) -> Prompt:
    """The caption that every photo is read with."""
    phrases = []
    for item in objects:
        class_name, _, words = item.rpartition("=")
        if not words.strip():
            raise UserError(f"--object {item!r} has no words; write it as CLASS=WORDS")
        phrases.append(ObjectPhrase(text=" ".join(words.split()), class_name=class_name.strip() or words.strip()))
    if not phrases:
        raise UserError("--model needs at least one --object CLASS=WORDS, the words to look for")
    caption = text or "a photo of " + " and ".join(f"a {phrase.text}" for phrase in phrases)
    for phrase in phrases:
        if phrase.text not in caption:
            raise UserError(f"--prompt {caption!r} lacks the words {phrase.text!r} of --object; write them into it")
    return Prompt(text=caption, objects=tuple(sorted(phrases, key=lambda phrase: caption.index(phrase.text))))
