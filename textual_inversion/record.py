"""What a folder's concept was learned from, so that nothing goes on there with other settings or photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffugen.config.content import fingerprints, first_change
from diffugen.config.settings import AttentionConfig, ModelConfig
from diffugen.errors import UserError
from diffugen.files import read_json
from textual_inversion.config import ConceptConfig
from textual_inversion.photos import digest, find_photos

RECORD_FILE = "concept.json"


def make_record(config: ConceptConfig, model: ModelConfig, attention: AttentionConfig, seed: int) -> dict[str, Any]:
    """Everything that decides the result. Photos and models count by their content: what was moved is the same."""
    settings = {"model": model.model_dump(mode="json", exclude={"device", "low_memory"})}
    return {
        "concept": config.model_dump(mode="json", exclude={"photos"}),
        "photos": digest(find_photos(config.photos)),
        "attention": attention.model_dump(mode="json", include={"blocks", "factors"}),
        "seed": seed,
        **settings,
        "content": fingerprints(settings),
    }


def is_begun(out: Path) -> bool:
    """Whether a concept, or several, were begun in a folder."""
    for path in (out / RECORD_FILE, *out.glob(f"*/{RECORD_FILE}")):
        try:
            record = read_json(path)
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and {"concept", "photos", "model"} <= set(record):
            return True
    return False


def check_same_concept(record: dict[str, Any], out: Path) -> None:
    """Refuse to go on in a folder that was begun with other settings or photos."""
    path = out / RECORD_FILE
    if not path.exists():
        return
    before = read_json(path)
    if before.get("photos") != record["photos"]:
        change: str | None = "the content of setting 'concept.photos' changed"
    else:
        content = before.pop("content", {})  # version 0.1 recorded none
        change = first_change(before, {name: value for name, value in record.items() if name != "content"}, content)
    if change is not None:
        raise UserError(
            f"{change} since the concept in {str(out)!r} was begun; give another folder, or remove that one"
        )
