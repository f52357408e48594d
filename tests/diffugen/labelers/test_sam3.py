"""SAM 3 by phrases, on a tiny random model of the published classes and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sam import save_tiny_sam

from diffugen.errors import UserError
from diffugen.labelers.base import LabelInput
from diffugen.labelers.sam3 import Sam3Labeler

PHRASES = {"car": ["red car", "lorry"], "tent": ["tent"]}
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sam(tmp_path_factory.mktemp("sam3") / "model", "sam3")


def test_objects_have_the_class_of_their_phrase_and_fit_the_image(model: Path) -> None:
    labeler = Sam3Labeler(model, PHRASES, ["tent", "car"], score_threshold=0.0)
    (found,) = labeler.label([LabelInput(IMAGES[0])])
    assert {*found.class_ids.tolist()} == {0, 1} and found.size_hw == (40, 60)
    assert (np.diff(found.scores) <= 0).all() and found.masks.any((1, 2)).all()
    (tents,) = Sam3Labeler(model, {"tent": ["tent"]}, ["tent"], score_threshold=0.0).label([LabelInput(IMAGES[0])])
    assert np.array_equal(tents.masks, found.masks[found.class_ids == 0])
    strict = Sam3Labeler(model, PHRASES, ["tent", "car"], score_threshold=float(np.median(found.scores)))
    assert 0 < len(strict.label([LabelInput(IMAGES[0])])[0]) < len(found)


def test_labels_do_not_depend_on_the_batch(model: Path) -> None:
    inputs = [LabelInput(IMAGES[0]), LabelInput(IMAGES[1][:30]), LabelInput(IMAGES[2])]
    alone = Sam3Labeler(model, PHRASES, ["tent", "car"], score_threshold=0.0, batch_size=1).label(inputs)
    together = Sam3Labeler(model, PHRASES, ["tent", "car"], score_threshold=0.0, batch_size=3).label(inputs)
    for one, other in zip(alone, together, strict=True):
        assert one.class_ids.tolist() == other.class_ids.tolist()
        assert np.allclose(one.scores, other.scores, atol=1e-4)
        assert (one.masks != other.masks).mean() < 1e-3


def test_a_phrase_matters(model: Path) -> None:
    by_word = [Sam3Labeler(model, {"car": [word]}, ["car"], score_threshold=0.0) for word in ("car", "tent")]
    scores = [torch.tensor(one.label([LabelInput(IMAGES[0])])[0].scores[:3]) for one in by_word]
    assert not torch.allclose(*scores, atol=1e-7)


def test_another_kind_of_model_is_refused(tmp_path: Path, model: Path) -> None:
    tracker = save_tiny_sam(tmp_path / "sam2", "sam2")
    with pytest.raises(UserError, match="is a model of the kind 'sam2'; give a SAM 3"):
        Sam3Labeler(tracker, PHRASES, ["tent", "car"])
    with pytest.raises(UserError, match="SAM 3 .*nowhere cannot be loaded"):
        Sam3Labeler(tmp_path / "nowhere", PHRASES, ["tent", "car"])


def test_a_config_that_asks_for_code_is_refused(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoModel": "x.y"}}))
    with pytest.raises(UserError, match="asks for auto_map"):
        Sam3Labeler(folder, PHRASES, ["tent", "car"])
