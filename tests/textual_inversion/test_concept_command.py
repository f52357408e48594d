"""`python -m textual_inversion`."""

import json
from pathlib import Path

import pytest

from textual_inversion.__main__ import main


@pytest.fixture
def config_file(tmp_path: Path, make_concept, tiny_model) -> Path:
    """A config on disk, its photos named relative to it."""
    concept = {**make_concept().model_dump(mode="json"), "photos": "photos"}
    path = tmp_path / "concept.json"
    path.write_text(json.dumps({"model": tiny_model.model_dump(mode="json"), "concept": concept}))
    return path


def test_it_learns_and_prints_the_path(config_file: Path, tmp_path: Path, capsys) -> None:
    assert main([str(config_file), "--out", str(tmp_path / "out"), "--set", "concept.steps=2"]) == 0
    path = tmp_path / "out" / "learned_embeds.safetensors"
    assert capsys.readouterr().out.strip() == str(path) and path.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("concept.step=2", "did you mean 'steps'"),
        ("concept.photos=nowhere", "concept.photos"),
        ("concept.initializer_word=\u2603", "concept.initializer_word"),
    ],
)
def test_mistakes_give_one_sentence_and_exit_code_2(
    config_file: Path, tmp_path: Path, capsys, override: str, message: str
) -> None:
    assert main([str(config_file), "--out", str(tmp_path / "out"), "--set", override]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
