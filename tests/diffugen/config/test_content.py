"""Configs are compared by what their paths lead to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from diffugen.config.content import SAMPLE, fingerprint, fingerprints, first_change


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("model/unet/weights", "model/index.json", "photos/a.png", "photos/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def config(folder: Path) -> dict:
    return {
        "model": {"path": str(folder / "model"), "lora": None},
        "concept": [{"photos": str(folder / "photos"), "word": "/photos"}],
        "steps": 3,
    }


def test_a_project_that_was_moved_is_the_same(project: Path, tmp_path: Path) -> None:
    before = config(project)
    content = fingerprints(before)
    assert set(content) == {"model.path", "concept.0.photos"}
    moved = project.rename(tmp_path / "moved")
    assert first_change(before, config(moved), content) is None
    assert first_change(before, {**config(moved), "steps": 4}, content) == "setting 'steps' changed from 3 to 4"
    assert "setting 'model.path' changed" in (first_change(before, config(moved), {}) or "")  # recorded without content


@pytest.mark.parametrize("copied", [False, True])
def test_other_content_is_a_change_under_any_name(project: Path, tmp_path: Path, copied: bool) -> None:
    before = config(project)
    content = fingerprints(before)
    now = Path(shutil.copytree(project, tmp_path / "copy")) if copied else project
    (now / "photos" / "b.png").write_text("another")
    change = first_change(before, config(now), content) or ""
    sentence = f"the content of setting 'concept.0.photos' ({now / 'photos'}) changed"
    assert change.startswith("setting 'concept.0.photos' changed from '") if copied else change == sentence


def test_a_gone_path_is_a_change(project: Path) -> None:
    before = config(project)
    content = fingerprints(before)
    shutil.rmtree(project)
    assert "model.path" in (first_change(before, config(project / "elsewhere"), content) or "")


def test_caches_and_hidden_files_do_not_count(project: Path) -> None:
    before = fingerprint(project)
    for name in (".DS_Store", "labels.cache", ".git/index"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x")
    assert fingerprint(project) == before
    (project / "photos" / "b.png").rename(project / "photos" / "c.png")
    assert fingerprint(project) != before


@pytest.mark.parametrize("place", [0, 5 * SAMPLE, 10 * SAMPLE - 1])
def test_large_files_are_distinguished_by_samples(tmp_path: Path, place: int) -> None:
    path = tmp_path / "weights"
    content = bytearray(os.urandom(10 * SAMPLE))
    path.write_bytes(content)
    before = fingerprint(path)
    content[place] ^= 1
    path.write_bytes(content)
    assert fingerprint(path) != before
