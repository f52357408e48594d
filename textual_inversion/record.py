"""What a folder's concept was learned from, so that nothing goes on there with other settings or photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffugen.checksums import Sums
from diffugen.config.content import fingerprints, first_change
from diffugen.config.settings import AttentionConfig, ModelConfig
from diffugen.contained import is_inside
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from textual_inversion.config import ConceptConfig
from textual_inversion.photos import digest, find_photos

RECORD_FILE = "concept.json"
FILES = "sha256"


def make_record(config: ConceptConfig, model: ModelConfig, attention: AttentionConfig, seed: int) -> dict[str, Any]:
    """Everything that decides the result. Photos and models count by their content: what was moved is the same."""
    settings = {"model": model.model_dump(mode="json", exclude={"device", "low_memory"})}
    return {
        "concept": config.model_dump(mode="json", exclude={"photos", "on_failure"}),
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
    before = {name: value for name, value in _read(path).items() if name != FILES}
    if before.get("photos") != record["photos"]:
        change: str | None = "the content of setting 'concept.photos' changed"
    else:
        content = before.pop("content", {})  # version 0.1 recorded none
        change = first_change(before, {name: value for name, value in record.items() if name != "content"}, content)
    if change is not None:
        raise UserError(
            f"{change} since the concept in {str(out)!r} was begun, says its {RECORD_FILE}; give another folder, or "
            "remove that one"
        )


def note_files(record: dict[str, Any], out: Path) -> None:
    """Complete the record of a learned concept: the SHA-256 of all its files."""
    files = [path for path in sorted(out.iterdir()) if path.is_file() and path.name != RECORD_FILE]
    write_json(out / RECORD_FILE, record | {FILES: Sums().of_all(files, out)})


def has_noted_files(out: Path) -> bool:
    """Whether a folder's record was completed by `note_files`."""
    path = out / RECORD_FILE
    return path.is_file() and FILES in _read(path)


def damaged_files(out: Path) -> list[Path]:
    """The files of a learned concept that are missing or not as they were noted."""
    path = out / RECORD_FILE
    noted = _read(path).get(FILES, {}) if path.is_file() else {}
    return [out / name for name, checksum in noted.items() if Sums().trouble(out / name, checksum)]


def _read(path: Path) -> dict[str, Any]:
    record = read_json(path)
    noted = record.get(FILES, {}) if isinstance(record, dict) else None
    if not isinstance(noted, dict) or not all(isinstance(noted[name], str) and is_inside(name) for name in noted):
        raise UserError(f"{path} is damaged; restore it from a copy or remove it")
    return record
