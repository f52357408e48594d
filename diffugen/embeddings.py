"""Files of learned token embeddings: textual inversion's result, read from every common format.

- diffusers: a `.safetensors` file `{"<token>": [num_vectors, dim]}`; what `write_embedding` writes.
- DiffuGen's first release: a `.pt` file `{"<token>": [dim]}`.
- A1111: a `.pt` file with `string_to_param`, or a `.safetensors` file with `emb_params`; the token is the
  name that the file gives, or else the file's own.
- SDXL: a file with `clip_l` and `clip_g`, one for each of its text encoders; the token is the file's name.
Nothing is unpickled except tensors and plain containers.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffugen.config import ConfigError
from diffugen.files import atomic_path


def read_embedding(path: Path) -> dict[str, Tensor]:
    """The embeddings of a file.

    Args:
        path: a `.safetensors`, `.pt` or `.bin` file in one of the formats above.

    Returns:
        token -> float32 [num_vectors, dim] on the CPU.

    Raises:
        ConfigError: the file does not exist, cannot be read safely, or is in no known format.
    """
    return {token: _rows(path, token, value) for token, value in _by_token(path, _read(path)).items()}


def read_sdxl_embedding(path: Path) -> tuple[str, Tensor, Tensor]:
    """The embedding of a file for SDXL.

    Returns:
        The token, which is the file's name; and its float32 [num_vectors, dim] for the first and the second
        text encoder, as many vectors of each.

    Raises:
        ConfigError: the file does not exist, cannot be read safely, or is not for SDXL.
    """
    values = _read(path)
    if set(values) != {"clip_l", "clip_g"}:
        raise ConfigError(
            f"embedding file {path} does not hold clip_l and clip_g, one for each of SDXL's text encoders; "
            "give one that was learned with SDXL"
        )
    first, second = (_rows(path, name, values[name]) for name in ("clip_l", "clip_g"))
    if len(first) != len(second):
        raise ConfigError(
            f"embedding file {path} has {len(first)} vectors in clip_l but {len(second)} in clip_g; learn it again"
        )
    return Path(path).stem, first, second


def write_embedding(path: Path, embeddings: Mapping[str, Tensor]) -> None:
    """Write embeddings in diffusers' format, atomically.

    Args:
        path: where to; ends in `.safetensors`.
        embeddings: token -> [num_vectors, dim], any float dtype; stored as float32.
    """
    tensors = {token: value.detach().to("cpu", torch.float32).contiguous() for token, value in embeddings.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def _read(path: Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"embedding file {path} does not exist; give the path of a learned_embeds.safetensors")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"embedding file {path} is not a readable safetensors file ({error}); fetch it again"
        ) from None


def _read_pickled(path: Path) -> dict[str, Any]:
    """A torch file; `weights_only` refuses everything that could run code."""
    try:
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):  # some A1111 files hold one
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"embedding file {path} is damaged or holds more than tensors, and then could run code; "
            "give a safetensors file"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ConfigError(f"embedding file {path} is not a readable torch file ({error}); fetch it again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"embedding file {path} holds a {type(values).__name__}; expected a dict of token to tensor")
    return values


def _by_token(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Bring A1111's two layouts to token -> tensor."""
    if "string_to_param" in values:
        name = values.get("name")
        token = name if isinstance(name, str) and name else path.stem
        return {token: next(iter(dict(values["string_to_param"]).values()), None)}
    if set(values) == {"emb_params"}:
        return {path.stem: values["emb_params"]}
    if {"clip_l", "clip_g"} & set(values):
        raise ConfigError(
            f"embedding file {path} is for SDXL's two text encoders (clip_l, clip_g); "
            "give one for a model with a single text encoder"
        )
    if not values:
        raise ConfigError(f"embedding file {path} is empty; give one with at least one token")
    return values


def _rows(path: Path, token: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or not value.is_floating_point():
        raise ConfigError(
            f"embedding file {path} has no float tensor [num_vectors, dim] for {token!r}; "
            "give a textual-inversion file (diffusers, A1111 or {token: tensor})"
        )
    rows = value.detach().to(torch.float32).reshape(-1, value.shape[-1])
    if rows.numel() == 0 or not torch.isfinite(rows).all():
        raise ConfigError(
            f"embedding file {path} has empty or non-finite values for {token!r}; learn the concept again"
        )
    return rows
