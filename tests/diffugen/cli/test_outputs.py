"""Places that no command may write to: one sentence before any work, and what is there stays."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from one_sentence import error_of
from PIL import Image

from diffugen.cli.main import main

FOLDERS = {
    "predict": "predict in --weights broken.pt --out",
    "label": "label in --weights broken.pt --out",
    "export": "export in --out",
    "generate": "generate generate.json --out",
    "learn": "learn learn.json --out",
    "loop": "loop loop.json --out",
}
FILES = {
    "evaluate": "evaluate --data in --weights broken.pt --json",
    "evaluate labels": "evaluate --data in --labels labels --json",
}
NO_FOLDERS = {
    "a file": ("notes.txt", "is a file"),
    "a link": ("link", "is a symbolic link"),
    "the working folder": (".", "is the working folder"),
    "somebody's folder": ("theirs", "has files that diffugen did not write"),
    "the input": ("in", "is the input"),
    "in the input": ("in/new/deep", "lies in the input"),
    "above the input": ("..", "holds the input|is a folder that|has files"),
    "below a file": ("notes.txt/out", "cannot be written"),
    "another spelling of the input": ("theirs/../in", "is the input"),
}
NO_FILES = {
    "a folder": ("theirs", "is a folder"),
    "a link": ("link.json", "is a symbolic link"),
    "somebody's file": ("notes.txt", "is there and not what this command writes"),
    "below a file": ("notes.txt/out.json", "cannot be written"),
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs whose models cannot be loaded: a command that gets so far says something else."""
    work = tmp_path / "work"
    (work / "theirs").mkdir(parents=True)
    (work / "theirs" / "thesis.txt").write_text("mine")
    (work / "notes.txt").write_text("mine")
    (work / "broken.pt").write_text("no weights")
    (work / "link").symlink_to("theirs")
    (work / "link.json").symlink_to("notes.txt")
    for folder in ("in/images/train", "labels/images/train"):
        (work / folder).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(work / folder / "a.png")
        (work / folder / "../../data.yaml").write_text("train: images/train\nval: images/train\nnames: [car]\n")
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(work / "in" / "a.png")
    model = {"path": "in"}
    prompts = {"templates": ["a {thing}"], "objects": {"thing": {"car": ["car"]}}}
    concept = {"placeholder_token": "<c>", "initializer_word": "car", "photos": "in"}
    loop = {"name": "x", "classes": ["car"], "rare_classes": ["car"], "detector": {"base_weights": "broken.pt"}}
    configs = {
        "generate": {"model": model, "prompts": prompts, "num_images": 1},
        "learn": {"model": model, "concept": concept},
        "loop": {"model": model, "prompts": prompts, **loop},
    }
    for name, config in configs.items():
        (work / f"{name}.json").write_text(json.dumps(config))
    monkeypatch.chdir(work)
    return work


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("place", NO_FOLDERS)
@pytest.mark.parametrize("command", FOLDERS)
def test_no_command_writes_into_such_a_folder(
    command: str, place: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(FOLDERS[command], *NO_FOLDERS[place], work, capsys)


@pytest.mark.parametrize("place", NO_FILES)
@pytest.mark.parametrize("command", FILES)
def test_no_command_writes_such_a_file(
    command: str, place: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(FILES[command], *NO_FILES[place], work, capsys)


def refused(command: str, out: str, reason: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(work)
    message = error_of(capsys, main([*command.split(), out]))
    assert re.search(reason, message), message
    assert command.split()[-1] in message
    assert contents(work) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("command", [*FOLDERS, *FILES])
def test_a_read_only_place_is_named(command: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "closed").mkdir(mode=0o500)
    refused({**FOLDERS, **FILES}[command], "closed/out", "is read-only", work, capsys)
