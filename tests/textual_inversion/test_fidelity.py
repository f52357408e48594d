"""How far a concept's images have come from its start word to its photos, and the step that is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffugen.detector.model import new_detector, save_detector
from diffugen.diffusion.embeddings import read_embedding
from diffugen.files import read_json
from textual_inversion.fidelity import ConceptFidelity, progress
from textual_inversion.learn import Setup, learn_concept
from textual_inversion.module import ConceptModule


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("judge") / "base.safetensors"
    save_detector(new_detector(["car"]), path)
    return path


def test_progress_is_the_share_of_the_way_to_the_photos() -> None:
    start, photos = np.zeros((3, 2, 4)), np.zeros((5, 2, 4))
    photos[:, 0, 0] = 2.0
    half = np.zeros((4, 2, 4))
    half[:, 0, 0], half[:, 1, 1] = 1.0, 7.0  # what leads elsewhere does not count
    assert progress(half, start, photos) == pytest.approx(0.5)
    assert progress(start, start, photos) == 0 and progress(photos, start, photos) == pytest.approx(1)
    assert progress(half, start, start) == 0  # nothing to tell photos from the start word by


def test_the_step_that_draws_the_photos_best_is_kept(
    tmp_path: Path, make_concept, setup: Setup, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textual_inversion.module.LOOK_EVERY", 4)
    monkeypatch.setattr("textual_inversion.fidelity.NUM_IMAGES", 2)
    scores, rows_at = iter([0.0, 0.5, 0.2, 0.1]), {}
    measured = ConceptFidelity.score
    look = ConceptModule._look

    def score(self: ConceptFidelity) -> float:
        assert np.isfinite(measured(self))
        return next(scores)

    def remember(self: ConceptModule) -> float:
        rows_at[self.global_step] = self.rows[0].detach().clone()
        return look(self)

    monkeypatch.setattr(ConceptFidelity, "score", score)
    monkeypatch.setattr(ConceptModule, "_look", remember)
    path = learn_concept(make_concept(steps=10), replace(setup, judge=judge), tmp_path / "out", progress=False)
    assert list(rows_at) == [0, 4, 8, 10]
    assert read_json(tmp_path / "out" / "fidelity.json") == {
        "score": 0.5,
        "by_step": {"0": 0.0, "4": 0.5, "8": pytest.approx(0.2), "10": pytest.approx(0.1)},
    }
    (rows,) = read_embedding(path)["<grand-piano>"]
    assert torch.equal(rows, rows_at[4]) and not torch.equal(rows, rows_at[10])
