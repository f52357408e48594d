"""What is known about a diffusion model from its small files, without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffugen.errors import UserError, reason_of
from diffugen.prompts.prompt import words_of

KINDS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
"""By the width of the text that the UNet attends to."""

SUGGESTED_FILE = "suggested.json"
"""Settings that a pipeline's folder suggests for configs, beside `model_index.json`: groups as in a config."""

_CROSS_ATTENTION = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model; None where nothing is.

    Attributes:
        kind: such as "Stable Diffusion 1.x".
        side: of the images that it was made for, pixels.
        words: whole words of its tokenizer's vocabulary.
        suggested: settings that its folder suggests.
    """

    kind: str | None = None
    side: int | None = None
    words: frozenset[str] | None = None
    suggested: Mapping[str, Any] = field(default_factory=dict)

    def knows(self, word: str) -> bool:
        """Whether a word is in the vocabulary, as far as that is known."""
        return self.words is None or word.lower() in self.words

    def draws(self, class_name: str) -> bool:
        """Whether all words of a class are in the vocabulary, as far as that is known."""
        return all(map(self.knows, words_of(class_name, {}).split()))


def model_facts(path: str) -> ModelFacts:
    """Facts of a pipeline folder, a single .safetensors file, or a hub id whose files are on this machine.

    Raises:
        UserError: it is none of these, or its files are broken.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        if not (local / "model_index.json").is_file():
            raise UserError(f"--model {path} has no model_index.json; give the folder of a diffusers pipeline")
        return _folder_facts(local)
    if local.is_file():
        if local.suffix != ".safetensors":
            raise UserError(f"--model {path} is no .safetensors file; give one, a pipeline folder or a hub id")
        return _file_facts(local)
    if local.suffix or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"--model {path} does not exist; give a pipeline folder, a .safetensors file or a hub id")
    snapshot = _cached(path)
    return ModelFacts() if snapshot is None else _folder_facts(snapshot)


def _folder_facts(folder: Path) -> ModelFacts:
    unet, vae = _read(folder / "unet/config.json"), _read(folder / "vae/config.json")
    size, blocks = unet.get("sample_size"), vae.get("block_out_channels")
    side = size * 2 ** (len(blocks) - 1) if isinstance(size, int) and isinstance(blocks, list) else None
    vocabulary = _read(folder / "tokenizer/vocab.json")
    vocabulary = vocabulary or _read(folder / "tokenizer/tokenizer.json").get("model", {}).get("vocab", {})
    words = frozenset(piece.removesuffix("</w>") for piece in vocabulary if piece.endswith("</w>"))
    kind = KINDS.get(unet.get("cross_attention_dim", 0), "a diffusers pipeline")
    return ModelFacts(kind, side, words or None, _read(folder / SUGGESTED_FILE))


def _file_facts(path: Path) -> ModelFacts:
    """From the names and shapes in the header of a checkpoint in Stability's layout."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            names = set(weights.keys())
            width = weights.get_slice(_CROSS_ATTENTION).get_shape()[1] if _CROSS_ATTENTION in names else None
    except (SafetensorError, OSError) as error:
        raise UserError(f"--model {path} cannot be read ({reason_of(error)}); give another file") from None
    if any(name.startswith("conditioner.") for name in names):
        return ModelFacts(KINDS[2048], 1024)
    sides = {768: 512, 1024: 768}
    return ModelFacts(KINDS[width], sides[width]) if width in sides else ModelFacts()


def _cached(repository: str) -> Path | None:
    """The folder of a hub's model, where its configs have been fetched before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        index = try_to_load_from_cache(repository, "model_index.json")
    except HFValidationError:
        raise UserError(f"--model {repository!r} is no hub id, and no such folder exists; give another") from None
    return Path(index).parent if isinstance(index, str) else None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}); restore the model's folder") from None
    return values if isinstance(values, dict) else {}
