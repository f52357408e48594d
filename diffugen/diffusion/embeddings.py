"""Files of learned token embeddings: textual inversion's result, read from every common format into a pipeline.

- diffusers: a `.safetensors` file `{"<token>": [num_vectors, dim]}`; what `write_embedding` writes.
- diffusers for SDXL: `{"clip_l": [n, 768], "clip_g": [n, 1280]}`, a row set per text encoder. The token is in the
  metadata of the files that `write_embedding` writes, and else the file's own name.
- DiffuGen's first release: a `.pt` file `{"<token>": [dim]}`.
- A1111: a `.pt` file with `string_to_param`, or a `.safetensors` file with `emb_params`; the token is the
  name that the file gives, or else the file's own.
Nothing is unpickled except tensors and plain containers.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError, reason_of
from diffugen.files import atomic_path

logger = logging.getLogger(__name__)

_TOKEN = "token"  # key of the metadata
_SDXL = ("clip_l", "clip_g")


def text_parts(pipe: Pipeline) -> list[tuple[str, Any, Any]]:
    """A pipeline's text encoders, one or SDXL's two: (its attribute's name, tokenizer, encoder) each."""
    names = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    parts = [(encoder, getattr(pipe, tokenizer, None), getattr(pipe, encoder, None)) for tokenizer, encoder in names]
    return [part for part in parts if part[2] is not None]


def load_embedding(pipe: Pipeline, path: Path) -> None:
    """Add the learned tokens of a file to a pipeline's tokenizers and text encoders.

    Raises:
        UserError: as `read_embedding`; or the file is for another number of text encoders or of dimensions, a token is
            known already, or no prompt would be read with it.
    """
    parts = text_parts(pipe)
    for token, learned in read_embedding(path).items():
        _check_fit(path, token, learned, parts)
        for rows, (_, tokenizer, encoder) in zip(learned, parts, strict=True):
            value = rows[0] if len(rows) == 1 else rows
            pipe.load_textual_inversion({token: value}, token=token, tokenizer=tokenizer, text_encoder=encoder)
            _check_read(path, token, rows, pipe, tokenizer, encoder)
        logger.info("learned token %s (%d vectors) from %s", token, len(learned[0]), path)


def _check_fit(path: Path, token: str, learned: Sequence[Tensor], parts: Sequence[tuple[str, Any, Any]]) -> None:
    if len(learned) != len(parts):
        raise UserError(
            f"model.embeddings: {token!r} in {path} is for {_count(learned)}, but this model has {_count(parts)}; "
            "give an embedding that was learned with this model"
        )
    if not token.strip() or token != token.strip() or not token.isprintable():
        raise UserError(f"model.embeddings: {path} names its token {token!r}; give it a word, such as '<piano>'")
    for rows, (_, tokenizer, encoder) in zip(learned, parts, strict=True):
        size = encoder.get_input_embeddings().weight.shape[1]
        if rows.shape[1] != size:
            raise UserError(
                f"model.embeddings: {token!r} in {path} has {rows.shape[1]} dimensions, but the text encoder "
                f"of this model has {size}; give an embedding that was learned with this model"
            )
        if token in tokenizer.get_vocab():
            raise UserError(f"model.embeddings: token {token!r} in {path} is already known; list it once")


def _check_read(path: Path, token: str, rows: Tensor, pipe: Pipeline, tokenizer: Any, encoder: Any) -> None:
    """Check that a prompt with the token reaches the rows that were learned; capitals and spaces can be in the way."""
    ids = tokenizer(pipe.maybe_convert_prompt(token, tokenizer), add_special_tokens=False).input_ids
    weight = encoder.get_input_embeddings().weight.detach()
    if len(ids) != len(rows) or max(ids) >= len(weight) or not torch.equal(weight[ids].cpu(), rows.to(weight.dtype)):
        raise UserError(
            f"model.embeddings: the tokenizer of this model does not read {token!r} of {path} as one word, so the "
            "embedding would change nothing; name the token in lower case, such as '<piano>'"
        )


def _count(encoders: Sequence[Any]) -> str:
    return "one text encoder" if len(encoders) == 1 else "two text encoders (clip_l and clip_g)"


def read_embedding(path: Path) -> dict[str, tuple[Tensor, ...]]:
    """The embeddings of a file.

    Args:
        path: a `.safetensors`, `.pt` or `.bin` file in one of the formats above.

    Returns:
        token -> float32 [num_vectors, dim] on the CPU for every text encoder: one, or SDXL's two.

    Raises:
        UserError: the file does not exist, cannot be read safely, or is in no known format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"embedding file {path} does not exist; give the path of a learned_embeds.safetensors")
    values, name = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickled(path), path.stem)
    if set(_SDXL) & set(values):
        if set(values) != set(_SDXL):
            raise UserError(
                f"embedding file {path} has {', '.join(values)}; one for SDXL has clip_l and clip_g, give such a file"
            )
        both = tuple(_rows(path, part, values[part]) for part in _SDXL)
        if len(both[0]) != len(both[1]):
            raise UserError(
                f"embedding file {path} has {len(both[0])} vectors for clip_l and {len(both[1])} for clip_g; "
                "give a file with as many for both"
            )
        return {name: both}
    return {token: (_rows(path, token, value),) for token, value in _by_token(path, values).items()}


def write_embedding(path: Path, token: str, learned: Sequence[Tensor]) -> None:
    """Write a token in diffusers' format, atomically.

    Args:
        path: where to; ends in `.safetensors`.
        token: the token.
        learned: [num_vectors, dim] for every text encoder, one or SDXL's two, any float dtype; stored as float32.
    """
    # One entry of metadata: several are written in no fixed order.
    names, metadata = ((token,), {"format": "pt"}) if len(learned) == 1 else (_SDXL, {_TOKEN: token})
    rows = (value.detach().to("cpu", torch.float32).contiguous() for value in learned)
    with atomic_path(path) as temporary:
        save_file(dict(zip(names, rows, strict=True)), temporary, metadata=metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], str]:
    """The tensors, and the token that the metadata name, or else the file's name."""
    try:
        with safe_open(path, framework="pt") as file:
            token = (file.metadata() or {}).get(_TOKEN, path.stem)
            return {key: file.get_tensor(key) for key in file.keys()}, token  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"embedding file {path} is not a readable safetensors file ({reason_of(error)}); fetch it again"
        ) from None


def _read_pickled(path: Path) -> dict[str, Any]:
    """A torch file; `weights_only` refuses everything that could run code."""
    try:
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):  # some A1111 files hold one
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"embedding file {path} is damaged or holds more than tensors, and then could run code; "
            "give a safetensors file"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"embedding file {path} is not a readable torch file ({reason_of(error)}); fetch it again"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"embedding file {path} holds a {type(values).__name__}; expected a dict of token to tensor")
    return values


def _by_token(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Bring A1111's two layouts to token -> tensor."""
    if "string_to_param" in values:
        name = values.get("name")
        token = name if isinstance(name, str) and name else path.stem
        return {token: next(iter(dict(values["string_to_param"]).values()), None)}
    if set(values) == {"emb_params"}:
        return {path.stem: values["emb_params"]}
    if not values:
        raise UserError(f"embedding file {path} is empty; give one with at least one token")
    return values


def _rows(path: Path, token: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or not value.is_floating_point():
        raise UserError(
            f"embedding file {path} has no float tensor [num_vectors, dim] for {token!r}; "
            "give a textual-inversion file (diffusers, A1111 or {token: tensor})"
        )
    rows = value.detach().to(torch.float32).reshape(-1, value.shape[-1])
    if rows.numel() == 0 or not torch.isfinite(rows).all():
        raise UserError(f"embedding file {path} has empty or non-finite values for {token!r}; learn the concept again")
    if not rows.any():
        raise UserError(f"embedding file {path} has nothing but zeros for {token!r}; learn the concept again")
    return rows
