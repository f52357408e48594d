"""Images resume with the model that they came from, wherever it lies, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffugen.config.settings import ModelConfig
from diffugen.errors import UserError
from diffugen.generation.model_record import named_model, record_model


def begun(out: Path, model: Path) -> None:
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    record_model(out, ModelConfig(path=str(model)))
    (out / "parts" / "batch_000000.jsonl").touch()


def test_a_model_that_was_moved_keeps_its_name(tmp_path: Path) -> None:
    begun(tmp_path / "out", tmp_path / "model")
    moved = ModelConfig(path=str((tmp_path / "model").rename(tmp_path / "moved")))
    record_model(tmp_path / "out", moved)
    assert named_model(tmp_path / "out", moved)["path"] == str(tmp_path / "model")
    assert named_model(tmp_path / "new", moved)["path"] == str(tmp_path / "moved")
    (tmp_path / "moved" / "weights").write_bytes(b"2")
    assert named_model(tmp_path / "out", moved)["path"] == str(tmp_path / "moved")  # so the samples differ


def test_other_content_under_the_same_name_is_refused_once_there_are_images(tmp_path: Path) -> None:
    out, model = tmp_path / "out", ModelConfig(path=str(tmp_path / "model"))
    begun(out, tmp_path / "model")
    (tmp_path / "model" / "weights").write_bytes(b"2")
    with pytest.raises(UserError, match=r"the content of setting 'model.path' \(.*\) changed since .*out was begun"):
        named_model(out, model)
    (out / "parts" / "batch_000000.jsonl").unlink()
    record_model(out, model)
    (out / "parts" / "batch_000000.jsonl").touch()
    assert named_model(out, model) == model.model_dump(mode="json")


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    begun(tmp_path / "out", tmp_path / "model")
    (tmp_path / "out" / "parts" / "model.json").write_text("[]")
    with pytest.raises(UserError, match="model.json is damaged"):
        named_model(tmp_path / "out", ModelConfig(path=str(tmp_path / "model")))
