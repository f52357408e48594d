"""The placeholder token in a pipeline: added to the tokenizer, its rows made the only trainable ones."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from peft import TrainableTokensConfig, get_peft_model
from torch import Tensor, nn

from diffugen.config import ConfigError
from textual_inversion.config import ConceptConfig


@dataclass(frozen=True)
class Placeholder:
    """A token under training.

    Attributes:
        tokens: the token and, for several vectors, `<token>_1`, `<token>_2`, ... as diffusers names them.
        token_ids: their ids in the tokenizer.
        rows: the trainable embedding, float32 [num_vectors, dim], that the text encoder reads in place of
            its own rows.
        mean_norm: mean L2 norm of the vocabulary's rows.
    """

    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    rows: nn.Parameter
    mean_norm: float


def placeholder_tokens(config: ConceptConfig) -> tuple[str, ...]:
    """One token per vector, named as diffusers' `load_textual_inversion` names them."""
    numbered = (f"{config.placeholder_token}_{index}" for index in range(1, config.num_vectors))
    return (config.placeholder_token, *numbered)


def check_tokens(config: ConceptConfig, tokenizer: Any) -> None:
    """Check the concept's words against a tokenizer.

    Raises:
        ConfigError: the placeholder is a token already, the initialiser is not known, or a template with the
            token in it is longer than the context.
    """
    vocabulary = tokenizer.get_vocab()
    for token in placeholder_tokens(config):
        if token in vocabulary:
            raise ConfigError(
                f"concept.placeholder_token: {token!r} is already a token of the model; choose another name, "
                "or leave its embedding out of model.embeddings"
            )
    initializer_ids(config.initializer_word, tokenizer)
    stand_in = " ".join(["!"] * config.num_vectors)  # the token is not added yet; this takes as many places
    for template in config.templates:
        length = len(tokenizer(template.format(stand_in)).input_ids)
        if length > tokenizer.model_max_length:
            raise ConfigError(
                f"concept.templates: {template!r} with {config.num_vectors} vectors takes {length} tokens of "
                f"at most {tokenizer.model_max_length}; shorten it or lower concept.num_vectors"
            )


def initializer_ids(words: str, tokenizer: Any) -> list[int]:
    """The token ids of the initialiser word or words.

    Raises:
        ConfigError: the tokenizer does not know one of the words. It can spell any word, but where the pieces
            are shorter than two letters on average, they mean nothing.
    """
    ids: list[int] = []
    for word in words.split():
        pieces = tokenizer(word, add_special_tokens=False).input_ids
        is_spelled = len(pieces) > 1 and len(word) < 2 * len(pieces)
        if not pieces or is_spelled or tokenizer.unk_token_id in pieces:
            raise ConfigError(
                f"concept.initializer_word: {word!r} is not a word of the model{_nearest(word, tokenizer)}; "
                "give one for something similar"
            )
        ids += pieces
    if not ids:
        raise ConfigError("concept.initializer_word is blank; give a word for something similar")
    return ids


def _nearest(word: str, tokenizer: Any) -> str:
    whole_words = [piece.removesuffix("</w>") for piece in tokenizer.get_vocab() if piece.endswith("</w>")]
    near = difflib.get_close_matches(word.lower(), [piece for piece in whole_words if len(piece) > 2])
    return f" (near: {', '.join(near)})" if near else ""


def add_placeholder(pipe: Any, config: ConceptConfig) -> Placeholder:
    """Add the token to the pipeline's tokenizer and text encoder, and make its rows the only trainable ones.

    The rows start at the mean of the initialiser's. `pipe.text_encoder` is wrapped by peft until
    `merge_placeholder`; the pipeline runs all the same.

    Raises:
        ConfigError: as `check_tokens`.
    """
    check_tokens(config, pipe.tokenizer)
    initial = initializer_ids(config.initializer_word, pipe.tokenizer)
    tokens = placeholder_tokens(config)
    pipe.tokenizer.add_tokens(list(tokens))
    token_ids = tuple(pipe.tokenizer.convert_tokens_to_ids(list(tokens)))

    encoder = pipe.text_encoder.float()  # a step of 1e-3 is lost in float16; the encoder is small
    mean_norm = encoder.get_input_embeddings().weight.norm(dim=1).mean().item()
    # Only ever larger: some models have more rows than their tokenizer has tokens.
    num_rows = max(len(pipe.tokenizer), encoder.get_input_embeddings().num_embeddings)
    encoder.resize_token_embeddings(num_rows, mean_resizing=False)
    weight = encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight[list(token_ids)] = weight[initial].mean(dim=0)

    encoder.requires_grad_(False)
    trainable = TrainableTokensConfig(token_indices=list(token_ids), target_modules=["token_embedding"])
    with warnings.catch_warnings():  # peft asks transformers by a name that transformers has since replaced
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        pipe.text_encoder = get_peft_model(encoder, trainable)
    (rows,) = (parameter for parameter in pipe.text_encoder.parameters() if parameter.requires_grad)
    return Placeholder(tokens, token_ids, rows, mean_norm)


def merge_placeholder(pipe: Any) -> None:
    """Write the learned rows into the text encoder, without peft's wrapper, in the model's own dtype."""
    pipe.text_encoder = pipe.text_encoder.merge_and_unload().to(pipe.unet.dtype)


@torch.no_grad()
def limit_norm(rows: Tensor, max_norm: float) -> None:
    """Scale rows [n, dim] that are longer than `max_norm` back to it, in place."""
    norms = rows.norm(dim=1, keepdim=True)
    rows.mul_((max_norm / norms).clamp(max=1.0))
