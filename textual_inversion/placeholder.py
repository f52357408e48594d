"""The placeholder token in a pipeline: added to the tokenizers, its rows made the only trainable ones."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import TrainableTokensConfig, get_peft_model
from torch import Tensor, nn

from diffugen.diffusion.embeddings import text_parts
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import is_spelled, tokenizers_of
from diffugen.errors import UserError
from textual_inversion.config import ConceptConfig


@dataclass(frozen=True)
class Placeholder:
    """A token under training.

    Attributes:
        tokens: the token and, for several vectors, `<token>_1`, `<token>_2`, ... as diffusers names them.
        rows: for every text encoder (SDXL has two) the trainable embedding, float32 [num_vectors, dim], that it
            reads in place of its own rows.
        mean_norms: for every text encoder, the mean L2 norm of the vocabulary's rows.
    """

    tokens: tuple[str, ...]
    rows: tuple[nn.Parameter, ...]
    mean_norms: tuple[float, ...]


def placeholder_tokens(config: ConceptConfig) -> tuple[str, ...]:
    """One token per vector, named as diffusers' `load_textual_inversion` names them."""
    numbered = (f"{config.placeholder_token}_{index}" for index in range(1, config.num_vectors))
    return (config.placeholder_token, *numbered)


def check_tokens(config: ConceptConfig, pipe: Pipeline, captions: Sequence[str] | None = None) -> None:
    """Check the concept's words against a pipeline's tokenizers.

    Args:
        config: the concept.
        pipe: the pipeline that will learn it.
        captions: templates of the photos' captions; None takes the config's.

    Raises:
        UserError: the placeholder is a token already, the initialiser is not known, or a template with the
            token in it is longer than the context.
    """
    for tokenizer in tokenizers_of(pipe):
        _check_tokens(config, tokenizer, config.templates if captions is None else captions)


def _check_tokens(config: ConceptConfig, tokenizer: Any, captions: Sequence[str]) -> None:
    vocabulary = tokenizer.get_vocab()
    for token in placeholder_tokens(config):
        if token in vocabulary:
            raise UserError(
                f"concept.placeholder_token: {token!r} is already a token of the model; choose another name, "
                "or leave its embedding out of model.embeddings"
            )
    if config.initializer_word is not None:
        initializer_ids(config.initializer_word, tokenizer)
    stand_in = " ".join(["!"] * config.num_vectors)  # the token is not added yet; this takes as many places
    for caption in captions:
        length = len(tokenizer(caption.format(stand_in)).input_ids)
        if length > tokenizer.model_max_length:
            raise UserError(
                f"concept.templates: {caption!r} with {config.num_vectors} vectors takes {length} tokens of "
                f"at most {tokenizer.model_max_length}; shorten it or lower concept.num_vectors"
            )


def initializer_ids(words: str, tokenizer: Any) -> list[int]:
    """The token ids of the initialiser word or words.

    Raises:
        UserError: the tokenizer does not know one of the words, see `is_spelled`.
    """
    ids: list[int] = []
    for word in words.split():
        if is_spelled(word, tokenizer):
            raise UserError(
                f"concept.initializer_word: {word!r} is not a word of the model{_nearest(word, tokenizer)}; "
                "give one for something similar"
            )
        ids += tokenizer(word, add_special_tokens=False).input_ids
    if not ids:
        raise UserError("concept.initializer_word is blank; give a word for something similar")
    return ids


def _nearest(word: str, tokenizer: Any) -> str:
    whole_words = [piece.removesuffix("</w>") for piece in tokenizer.get_vocab() if piece.endswith("</w>")]
    near = difflib.get_close_matches(word.lower(), [piece for piece in whole_words if len(piece) > 2])
    return f" (near: {', '.join(near)})" if near else ""


def add_placeholder(pipe: Pipeline, config: ConceptConfig) -> Placeholder:
    """Add the token to the pipeline's tokenizers and text encoders, and make its rows the only trainable ones.

    The rows start at the mean of the initialiser's. The text encoders are wrapped by peft until
    `merge_placeholder`; the pipeline runs all the same.

    Raises:
        UserError: as `check_tokens`.
    """
    check_tokens(config, pipe)
    tokens = placeholder_tokens(config)
    rows, mean_norms = [], []
    for name, tokenizer, encoder in text_parts(pipe):
        initial = initializer_ids(config.start_word, tokenizer)
        tokenizer.add_tokens(list(tokens))
        encoder.float()  # a step of 1e-3 is lost in float16; the encoder is small
        mean_norms.append(encoder.get_input_embeddings().weight.norm(dim=1).mean().item())
        wrapped, trainable = _with_trainable_rows(encoder, tokenizer, tokens, initial)
        setattr(pipe, name, wrapped)
        rows.append(trainable)
    return Placeholder(tokens, tuple(rows), tuple(mean_norms))


def _with_trainable_rows(
    encoder: Any, tokenizer: Any, tokens: tuple[str, ...], initial: list[int]
) -> tuple[Any, nn.Parameter]:
    """A text encoder frozen but for the rows of `tokens`, which start at the mean of the rows `initial`."""
    token_ids = tokenizer.convert_tokens_to_ids(list(tokens))
    # Only ever larger: some models have more rows than their tokenizer has tokens.
    num_rows = max(len(tokenizer), encoder.get_input_embeddings().num_embeddings)
    encoder.resize_token_embeddings(num_rows, mean_resizing=False)
    weight = encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight[token_ids] = weight[initial].mean(dim=0)
    encoder.requires_grad_(False)
    trainable = TrainableTokensConfig(token_indices=token_ids, target_modules=["token_embedding"])
    with warnings.catch_warnings():  # peft asks transformers by a name that transformers has since replaced
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        wrapped = get_peft_model(encoder, trainable)
    (rows,) = (parameter for parameter in wrapped.parameters() if parameter.requires_grad)
    return wrapped, rows


def merge_placeholder(pipe: Pipeline) -> None:
    """Write the learned rows into the text encoders, without peft's wrapper, in the model's own dtype."""
    for name, _, encoder in text_parts(pipe):
        setattr(pipe, name, encoder.merge_and_unload().to(pipe.unet.dtype))


@torch.no_grad()
def limit_norm(rows: Tensor, max_norm: float) -> None:
    """Scale rows [n, dim] that are longer than `max_norm` back to it, in place."""
    norms = rows.norm(dim=1, keepdim=True)
    rows.mul_((max_norm / norms).clamp(max=1.0))
