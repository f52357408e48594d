"""What a folder's concept was learned from, so that nothing goes on there with other settings or photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffugen.config import ConfigError, ModelConfig
from diffugen.files import read_json
from textual_inversion.config import ConceptConfig
from textual_inversion.photos import digest, find_photos

RECORD_FILE = "concept.json"


def make_record(config: ConceptConfig, model: ModelConfig) -> dict[str, Any]:
    """Everything that decides the result. Photos count by their bytes: a folder that moved is the same."""
    return {
        "concept": config.model_dump(mode="json", exclude={"photos"}),
        "photos": digest(find_photos(config.photos)),
        "model": model.model_dump(mode="json", exclude={"device", "cpu_offload", "vae_slicing"}),
    }


def check_same_concept(record: dict[str, Any], out: Path) -> None:
    """Refuse to go on in a folder that was begun with other settings or photos."""
    path = out / RECORD_FILE
    if not path.exists():
        return
    before, now = _leaves(read_json(path)), _leaves(record)
    for key in now:
        if before.get(key) != now[key]:
            raise ConfigError(
                f"{str(out)!r} holds a concept that was begun with other settings ({key} was "
                f"{before.get(key)!r} and is now {now[key]!r}); give another folder, or remove that one"
            )


def _leaves(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted.key -> value."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
