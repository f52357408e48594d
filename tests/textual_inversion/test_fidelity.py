"""How much of its photos a concept draws, and the step that is kept for it."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from concept_training import learned_rows, stopped_at

from diffugen.config.loader import validate
from diffugen.config.settings import AttentionConfig, GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError
from diffugen.toyworld.photos import write_photos
from textual_inversion.config import ConceptConfig
from textual_inversion.fidelity import Fidelity, FidelityJudge
from textual_inversion.learn import Setup, fidelities, learn_concept

WEIGHTS = Path(__file__).parents[2] / "diffugen/toyworld/weights"


class Judge:
    """Says scores one after another, and remembers what it was shown."""

    scores = (0.3, 0.7, 0.5)
    start_is_near = False

    def __init__(self, *_: Any) -> None:
        self.left: Iterator[float] = iter(self.scores)

    def __call__(self, pipe: Any) -> float:
        return next(self.left)


@pytest.fixture
def judged(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A setup whose concepts are judged by `Judge`."""
    monkeypatch.setattr("textual_inversion.learn.FidelityJudge", Judge)
    return replace(setup, detector=Path("base.safetensors"))


def test_the_best_step_is_kept(tmp_path: Path, make_concept, setup: Setup, judged: Setup) -> None:
    """The concept is judged after a half, three quarters and all of the steps."""
    config = make_concept(steps=8)
    best = learn_concept(config, judged, tmp_path / "judged", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Judge, "scores", (0.1, 0.2, 0.3))
        last = learn_concept(config, judged, tmp_path / "later", progress=False)
    unjudged = learn_concept(config, setup, tmp_path / "unjudged", progress=False)
    assert Fidelity.read(tmp_path / "judged") == Fidelity(0.7, {4: 0.3, 6: 0.7, 8: 0.5})
    assert Fidelity.read(tmp_path / "unjudged") is None
    assert torch.equal(learned_rows(last), learned_rows(unjudged)), "judging changes nothing of the training"
    assert not torch.equal(learned_rows(best), learned_rows(last))
    assert fidelities([config], tmp_path / "judged") == [(config, Fidelity(0.7, {4: 0.3, 6: 0.7, 8: 0.5}))]


def test_what_was_best_survives_an_interrupt(
    tmp_path: Path, make_concept, judged: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_concept(steps=8)
    whole = learn_concept(config, judged, tmp_path / "whole", progress=False)
    monkeypatch.setattr("textual_inversion.trainer.CHECKPOINT_EVERY", 1)
    with stopped_at(monkeypatch, 7):
        learn_concept(config, judged, tmp_path / "cut", progress=False)
    monkeypatch.setattr(Judge, "scores", (0.5,))  # of the last step; the others are in the checkpoint
    resumed = learn_concept(config, judged, tmp_path / "cut", progress=False)
    assert resumed.read_bytes() == whole.read_bytes()
    assert Fidelity.read(tmp_path / "cut") == Fidelity.read(tmp_path / "whole")


def test_a_word_that_draws_the_photos_scores_more_than_the_start_word(tmp_path: Path) -> None:
    """By the toy world's model, to which cars are known: the judge is not told which word is theirs."""
    photos = write_photos("car", tmp_path / "photos", 4, 5)[0].parent
    pipe = load_pipeline(ModelConfig(path=str(WEIGHTS / "pipeline"), device="cpu"))
    settings = GenerateConfig(
        num_inference_steps=6, guidance_scale=4.0, batch_size=8, attention=AttentionConfig(blocks=["up"])
    )
    scores = {}
    for word in ("car", "bench"):
        config = ConceptConfig.model_construct(
            photos=photos, placeholder_token=word, initializer_word="bench", templates=("a photo of a {}",)
        )
        judge = FidelityJudge(WEIGHTS / "detector.safetensors", config, pipe, settings, seed=3)
        assert not judge.start_is_near
        scores[word] = pickle.loads(pickle.dumps(judge))(pipe)  # as processes that train together get it
    assert scores["bench"] == pytest.approx(0, abs=1e-6) and 0.5 < scores["car"] < 1.5


def test_what_it_says(make_concept, tmp_path: Path) -> None:
    config: ConceptConfig = make_concept()
    failed, good, near = Fidelity(0.03, {12: 0.03}), Fidelity(0.71, {12: 0.71}), Fidelity(None, {12: 4.0})
    assert failed.is_failed and not good.is_failed and not near.is_failed
    assert "concept failed: images of <grand-piano> have come 3% of the way from 'car'" in failed.sentence(config)
    assert "have come 71% of the way from 'car' to the photos" in good.sentence(config)
    beyond = Fidelity(1.05, {})  # features are noisy
    assert "have come 100% of the way from 'car' to the photos" in beyond.sentence(config)
    assert "<grand-piano> has no score" in near.sentence(config)
    near.write(tmp_path)
    assert Fidelity.read(tmp_path) == near


@pytest.mark.parametrize(
    "text", ["", "[]", '{"score": 1}', '{"score": "x", "by_step": {}}', '{"score": 1, "by_step": 3}']
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "fidelity.json").write_text(text)
    with pytest.raises(UserError, match=r"fidelity\.json is damaged; restore it"):
        Fidelity.read(tmp_path)


def test_earlier_settings_are_named(make_concept) -> None:
    with pytest.raises(UserError, match=r"'num_held_out_photos' was removed: a loop keeps the step"):
        make_concept(num_held_out_photos=1)
    with pytest.raises(UserError, match="on_failure"):
        validate(json.loads('{"photos": "x", "initializer_word": "car", "on_failure": "ignore"}'), ConceptConfig)
