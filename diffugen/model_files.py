"""Files of downloaded models: what their configs may ask for (never code of their own), and whether they are whole."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffugen.errors import UserError, reason_of
from diffugen.files import is_full_disk

_CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
_CODE = ("auto_map", "custom_pipelines", "quantization_config", "use_kernels", "kernel_config")
_ATTENTION = (None, "eager", "sdpa")  # others are packages, or kernels of a hub
_MAX_BYTES = 10_000_000

logger = logging.getLogger(__name__)


def check_model_folder(folder: Path, setting: str) -> None:
    """Check all configs of a model folder and its parts, see `check_model_config`."""
    for path in sorted(path for name in _CONFIGS for path in [folder / name, *folder.glob(f"*/{name}")]):
        if path.is_file():
            check_model_config(read_model_config(path, setting), f"{setting}: {path}")


def read_model_config(path: Path, setting: str) -> dict[str, Any]:
    """A config file of a model.

    Raises:
        UserError: it is no JSON object, or too large for one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{setting}: {path} is no config of a model; fetch the model again")
    return values


def check_model_config(values: Mapping[str, Any], place: str) -> None:
    """Refuse a config that asks for code or kernels of its own, or a package to read its weights.

    Raises:
        UserError: the key, at `place`.
    """
    for key, value in _entries(values):
        if value and (key in _CODE or ("attn_implementation" in key and value not in _ATTENTION)):
            raise UserError(
                f"{place} asks for {key}, which may import or fetch code; only plain models of diffusers and "
                "transformers are loaded, give one of these"
            )


def _entries(values: Any) -> Iterator[tuple[str, Any]]:
    """All keys of nested objects with their values."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield str(key), value
            yield from _entries(value)
    elif isinstance(values, list):
        for value in values:
            yield from _entries(value)


@contextmanager
def loading(what: str, remedy: str) -> Iterator[None]:
    """Whatever goes wrong in the block is one sentence; full disks and a lack of memory have theirs elsewhere.

    Args:
        what: the model, for messages.
        remedy: what the user should do.

    Raises:
        UserError: the model cannot be loaded, and why.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # what a broken or hostile file makes of the loaders is no closed list
        if is_full_disk(error) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise
        logger.debug("loading %s failed", what, exc_info=True)
        raise UserError(f"{what} cannot be loaded ({reason_of(error)}); {remedy}") from None


def check_weights(network: Any, missing_keys: Iterable[str], what: str) -> None:
    """Check that a network of transformers has all its weights, and that they are numbers.

    Args:
        network: from `from_pretrained`.
        missing_keys: what its loading info says is missing, buffers included.
        what: the model, for messages.

    Raises:
        UserError: it has not, or they are not.
    """
    import torch  # a config can be checked without its seconds of imports

    names = {name for name, _ in network.named_parameters()}
    if missing := sorted(names & {*missing_keys}):
        raise UserError(
            f"{what} lacks {len(missing)} of its {len(names)} weights (first: {missing[0]}); fetch model.safetensors "
            "again"
        )
    if not all(torch.isfinite(weight).all() for weight in network.parameters()):
        raise UserError(f"{what} has weights that are no numbers; give another file")
