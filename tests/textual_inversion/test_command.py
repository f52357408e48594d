"""`python -m textual_inversion`."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from diffugen.lock import locked
from textual_inversion.__main__ import main
from textual_inversion.module import ConceptModule


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
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 1 and message in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_training_stops_it_and_names_the_command_that_goes_on(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, number: signal.Signals, code: int
) -> None:
    arguments = [str(config_file), "--out", str(tmp_path / "out")]
    step = ConceptModule.training_step

    def stopping_step(self: ConceptModule, *given):
        if self.global_step == 5:
            os.kill(os.getpid(), number)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ConceptModule, "training_step", stopping_step)
        assert main(arguments) == code
    message = f"textual_inversion: stopped by {number.name}; to resume, run: {shlex.join(sys.orig_argv)}"
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert main(arguments) == 0


def test_a_folder_in_use_is_refused(config_file: Path, tmp_path: Path, capsys) -> None:
    with locked(tmp_path / "out"):
        assert main([str(config_file), "--out", str(tmp_path / "out")]) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err
