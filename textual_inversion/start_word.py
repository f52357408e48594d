"""The word that a concept starts from: of several, the one that suits the photos best."""

from __future__ import annotations

from collections.abc import Sequence

from diffugen.attention.presence import denoising_errors
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import tokenizers_of
from diffugen.errors import UserError
from diffugen.progress import progress_bar
from diffugen.prompts.prompt import Prompt
from textual_inversion.config import ConceptConfig
from textual_inversion.photos import find_photos, load_photo
from textual_inversion.placeholder import initializer_ids

MOST_PHOTOS, MOST_WORDS = 4, 100
"""Each word costs seven UNet passes per photo."""


def choose_start_word(config: ConceptConfig, pipe: Pipeline, words: Sequence[str], seed: int) -> str:
    """The word with which the model denoises the photos best (Li et al. 2023, "Your Diffusion Model is Secretly a
    Zero-Shot Classifier").

    Args:
        config: the concept; its first template is the caption.
        pipe: the pipeline that will learn it.
        words: to choose from; those that the model does not know are left out.
        seed: of the noise, which is the same for all words.

    Raises:
        UserError: the model knows none of the words.
    """
    known = known_words(words, pipe)
    photos = [at_most_native(load_photo(path), pipe) for path in find_photos(config.photos)[:MOST_PHOTOS]]
    errors = {}
    for word in progress_bar(known, desc="choosing a start word", unit="word"):
        prompt = Prompt(config.templates[0].format(word), ())
        errors[word] = sum(float(denoising_errors(pipe, [photo], [prompt], seed).mean()) for photo in photos)
    return min(errors, key=lambda word: errors[word])


def known_words(words: Sequence[str], pipe: Pipeline) -> list[str]:
    """Those of the words that the model knows, at most `MOST_WORDS`.

    Raises:
        UserError: it knows none.
    """
    known = [word for word in dict.fromkeys(words) if _is_known(word, pipe)][:MOST_WORDS]
    if not known:
        raise UserError(
            f"concept.initializer_word is missing, and the model knows none of the words {', '.join(words[:20])}; "
            "give one for something similar"
        )
    return known


def _is_known(word: str, pipe: Pipeline) -> bool:
    try:
        return all(initializer_ids(word, tokenizer) for tokenizer in tokenizers_of(pipe))
    except UserError:
        return False
