"""Which model a folder's images came from, so that they resume with it wherever it lies now, and with no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffugen.config.content import fingerprints, first_change, renamed
from diffugen.config.settings import ModelConfig
from diffugen.errors import UserError
from diffugen.files import read_json, write_json


def named_model(out: Path, model: ModelConfig) -> dict[str, Any]:
    """The model as the samples of a folder record it: with the paths that it had when the folder was begun.

    Raises:
        UserError: there are images already, and the content of a path changed since.
    """
    values = {"model": model.model_dump(mode="json")}
    path = _record_of(out)
    if not path.is_file() or not any(path.parent.glob("batch_*.jsonl")):
        return values["model"]
    record = read_json(path)
    try:
        before, content = {"model": record["model"]}, record["content"]
        named = renamed(values, before, content)
        change = first_change(before, values, content) if named == before else None  # else the samples differ
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; restore it from a copy or remove it") from None
    if change is not None:
        raise UserError(f"{change} since {out} was begun; change it back, or give another folder with --out")
    return named["model"]


def record_model(out: Path, model: ModelConfig) -> None:
    """Record the model of a folder, before its first images."""
    path = _record_of(out)
    if not path.is_file() or not any(path.parent.glob("batch_*.jsonl")):
        values = {"model": model.model_dump(mode="json")}
        write_json(path, {**values, "content": fingerprints(values)})


def _record_of(out: Path) -> Path:
    return out / "parts" / "model.json"
