"""The prompts of a round, and their checks before any work starts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from bootstrap.config import LoopConfig
from bootstrap.held_out import OTHER
from bootstrap.run_folder import derive_seed
from bootstrap.variations import possible_prompts
from diffugen.diffusion.prompt_encoding import without_weights
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import check_prompt, is_spelled, tokenizers_of
from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt
from diffugen.prompts.templates import sample_prompts

logger = logging.getLogger(__name__)


def round_prompts(config: LoopConfig, index: int) -> list[Prompt]:
    """The prompts of a round; they follow from the run's seed."""
    assert config.prompts is not None
    return sample_prompts(config.prompts, config.rounds.num_images, seed=derive_seed(config.seed, "prompts", index))


def check_prompts(config: LoopConfig, pipe: Pipeline, new_tokens: Sequence[Sequence[str]] = ()) -> None:
    """Check every prompt of every round before any work starts.

    Args:
        config: the loop's settings.
        pipe: the pipeline, which need not know the new tokens yet and is left as it is.
        new_tokens: for every concept its placeholder token and, for several vectors, the further ones.

    Raises:
        UserError: a prompt would be cut or lacks an object's phrase, or no prompt has the placeholder.
    """
    rounds = range(config.rounds.num_rounds)
    prompts = {prompt.text: prompt for index in rounds for prompt in round_prompts(config, index)}
    for placeholder, *_ in new_tokens:
        if not any(placeholder in text for text in prompts):
            raise UserError(
                f"setting 'concept.placeholder_token': {placeholder!r} is in no prompt; "
                "use it in 'prompts.templates' or 'prompts.objects', spelt the same"
            )
    reader: Any = pipe
    if new_tokens:
        tokenizers = [copy.deepcopy(tokenizer) for tokenizer in tokenizers_of(pipe)]
        for tokenizer in tokenizers:
            tokenizer.add_tokens([token for tokens in new_tokens for token in tokens])
        reader = SimpleNamespace(**dict(zip(("tokenizer", "tokenizer_2"), tokenizers, strict=False)))
    pool = config.pool.prompts if config.pool else []
    _warn_of_spelled_words(config, reader)
    for prompt in [*prompts.values(), *possible_prompts(config, list(prompts.values())), *pool]:
        check_prompt(reader, prompt, config.generate.attention.attend)


def _warn_of_spelled_words(config: LoopConfig, reader: Any) -> None:
    """Warn of things whose words the model does not have: what it draws for them counts as one all the same."""
    assert config.prompts is not None
    phrases = {(name, text) for slot in config.prompts.objects.values() for name in slot for text in slot[name]}
    phrases |= {(OTHER, text) for text in config.prompts.attributes.get(OTHER, ())}
    spelled: dict[str, str] = {}
    for name, text in sorted(phrases):
        words = without_weights(text).split()
        spelled |= {word: name for word in words if any(is_spelled(word, one) for one in tokenizers_of(reader))}
    for word, name in spelled.items():
        logger.warning(
            "prompts: the model has no word %r (%s), and may draw something else; look at its images", word, name
        )
