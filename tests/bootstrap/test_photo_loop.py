"""A loop of photographs alone on a tiny random detector: end to end, resumed, refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loop_run import decisions, error_of
from tiny_sam import save_tiny_sam

import train_loop
from bootstrap import labelers, rounds
from bootstrap.config import LoopConfig
from bootstrap.context import RoundContext
from bootstrap.evidence import Evidence
from bootstrap.held_out import known_by_folds
from bootstrap.labelers import first_labeler
from bootstrap.run_folder import RunFolder, promoted_rounds
from diffugen.config.loader import validate
from diffugen.datasets.folder import write_dataset
from diffugen.detector.model import new_detector, save_detector
from diffugen.errors import UserError
from diffugen.files import read_json, read_jsonl, write_json
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.labelers.detector import DetectorLabeler
from diffugen.labelers.sam3 import Sam3Labeler
from diffugen.sample import Sample, read_samples

CONFIG: dict[str, Any] = {
    "name": "photos",
    "classes": ["balloon"],
    "pool": {"folder": "photos"},
    "detector": {"base_weights": "base.safetensors", "imgsz": 64, "epochs": 1, "batch_size": 4, "device": "cpu"},
    "rounds": {"num_rounds": 2},
}
NUM_PHOTOS, NUM_LABELLED = 5, 2


def find_bright(labeler: Any, inputs: Sequence[LabelInput]) -> list[Instances]:
    """In place of a random detector, which finds nothing: what is white is a balloon."""
    masks = [(item.image == 255).all(axis=2)[None] for item in inputs]
    return [Instances.from_masks(mask[: int(mask.any())], [0] * int(mask.any())) for mask in masks]


@pytest.fixture(scope="module", autouse=True)
def _labeler_finds_bright() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectorLabeler, "label", find_bright)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of a white block in noise, the last of the pool without; a labelled dataset of which one photo lies in the
    pool as well; a base detector."""
    folder = tmp_path_factory.mktemp("photo_inputs")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 200, (64, 80, 3), dtype=np.uint8) for _ in range(NUM_PHOTOS + NUM_LABELLED - 1)]
    for image in images[: NUM_PHOTOS - 2] + images[NUM_PHOTOS - 1 :]:
        image[8:40, 8:48] = 255
    for number in range(NUM_PHOTOS):
        write_png(folder / "photos" / f"{number}.png", images[number])
    masks = np.zeros((1, 64, 80), bool)
    masks[0, 8:40, 8:48] = True
    given = [
        Sample.labelled(str(number), image, Instances.from_masks(masks, [0]), "train")
        for number, image in enumerate(images[NUM_PHOTOS - 1 :])
    ]
    write_dataset(folder / "labelled", given, ["balloon"])
    torch.manual_seed(0)
    save_detector(new_detector(["orange", "ball"]), folder / "base.safetensors")
    return folder


WITH_MAP = CONFIG["detector"] | {"class_map": {"balloon": ["orange", "ball"]}}


def write_config(inputs: Path, name: str, **changes: Any) -> Path:
    path = inputs / f"{name}.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return path


@pytest.fixture(scope="module")
def with_labelled(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that begins with given labels; read only."""
    out = tmp_path_factory.mktemp("photo_runs") / "labelled"
    config = write_config(inputs, "labelled", labelled="labelled")
    assert train_loop.main([str(config), "--out", str(out)]) == 0
    return RunFolder(out)


def test_given_labels_begin_a_loop_of_photos(with_labelled: RunFolder) -> None:
    first, second = with_labelled.complete_rounds()
    rows = read_jsonl(with_labelled.metrics)
    assert [row["labels_from"] for row in rows] == ["given", "detector"]
    assert rows[0]["promoted"] and rows[0]["num_generated"] == 0
    assert len(list((first.dataset / "images/train").iterdir())) == NUM_LABELLED
    photos = read_samples(second.samples)
    assert [photo.reason for photo in photos] == [""] * 3 + ["nothing_found"]
    assert {photo.labeler for photo in photos if photo.kept} == {"consensus"}
    assert len(list((second.dataset / "images/train").iterdir())) == NUM_LABELLED + 3
    assert len(photos) == NUM_PHOTOS - 1, "a photo that is labelled as well is not labelled again"
    assert all(photo.is_photo and photo.heatmap_path is None for photo in photos)
    assert all(set(photo.encoded_labels) == {"detector", "flipped"} for photo in photos)
    assert with_labelled.best.is_file() and with_labelled.report.is_file()


def test_labelled_photos_are_judged_by_detectors_that_have_not_seen_them(with_labelled: RunFolder) -> None:
    for folder, row in zip(with_labelled.complete_rounds(), read_jsonl(with_labelled.metrics), strict=True):
        evidence = Evidence.read(folder.evidence)
        assert {photo.judge for photo in evidence.photos} == {"fold 0", "fold 1"}
        assert len(evidence.agreement_by_photo()) == NUM_LABELLED == row["photos/num"]
        assert row["val/image_agreement"] == np.mean(list(evidence.agreement_by_photo().values()))


def test_detectors_of_three_folds_vote_on_photos(
    inputs: Path, tmp_path: Path, with_labelled: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handful of labels teaches each of them to see other things that are not there."""
    config = validate({**CONFIG, "labelled": "labelled"}, LoopConfig, folder=inputs)
    assert not any(
        name.startswith("fold") for name in labelers.round_labelers(config, with_labelled, with_detector=True)
    )
    run = RunFolder(shutil.copytree(with_labelled.path, tmp_path / "run"))
    folds = promoted_rounds(run)[-1]
    shutil.copy(folds.fold(0), folds.fold(2))
    assert "fold0" not in labelers.round_labelers(config, run, with_detector=True), "nothing is found where it is not"
    row = read_json(folds.metrics)
    assert row["photos/found_elsewhere"] == 0
    write_json(folds.metrics, row | {"photos/found_elsewhere": 0.5})
    voters = labelers.round_labelers(config, run, with_detector=True)
    assert set(voters) >= {"detector", "flipped", "fold0", "fold1", "fold2"}


def test_a_fold_has_no_say_about_a_class_whose_only_photo_it_was_trained_without(tmp_path: Path) -> None:
    masks = np.zeros((1, 64, 80), bool)
    masks[0, 8:40, 8:48] = True
    rng = np.random.default_rng(0)
    given = [
        Sample.labelled(
            str(number),
            rng.integers(0, 200, (64, 80, 3), dtype=np.uint8),
            Instances.concatenate([Instances.from_masks(masks, [one]) for one in ([0, 1] if number == 1 else [0])]),
            "train",
        )
        for number in range(3)
    ]
    write_dataset(tmp_path / "labelled", given, ["balloon", "kite"])
    values = {**CONFIG, "classes": ["balloon", "kite"], "labelled": "labelled"}
    config = validate(values, LoopConfig, folder=tmp_path)
    known = known_by_folds(config, RunFolder(tmp_path / "run"), ["detector", "fold0", "fold1", "fold2"])
    assert known == {"fold0": {"balloon", "kite"}, "fold1": {"balloon"}, "fold2": {"balloon", "kite"}}


@pytest.fixture(scope="module")
def by_class_map(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that begins with the base detector's labels; read only."""
    out = tmp_path_factory.mktemp("photo_runs") / "class_map"
    config = write_config(inputs, "class_map", detector=WITH_MAP)
    assert train_loop.main([str(config), "--out", str(out)]) == 0
    return RunFolder(out)


def test_the_base_detector_may_begin_a_loop_of_photos(by_class_map: RunFolder) -> None:
    first, second = by_class_map.complete_rounds()
    rows = read_jsonl(by_class_map.metrics)
    assert [row["labels_from"] for row in rows] == ["detector", "detector"]
    frozen = {sample.image_path.stem for sample in read_samples(first.samples) if sample.split == "val"}
    assert frozen and not frozen & {sample.image_path.stem for sample in read_samples(second.samples)}
    assert rows[0]["val/base_agreement"] == rows[0]["val/image_agreement"] == 1
    assert rows[1]["verdict"]["level"] == "doubtful" and "came with labels" in rows[1]["verdict"]["reasons"][0]


def test_a_finished_loop_of_photos_goes_on_and_changes_nothing(by_class_map: RunFolder, inputs: Path) -> None:
    before = decisions(by_class_map)
    assert train_loop.main([str(inputs / "class_map.json"), "--out", str(by_class_map.path)]) == 0
    assert decisions(by_class_map) == before


def test_an_interrupted_loop_of_photos_ends_as_an_undisturbed_one(
    by_class_map: RunFolder, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(inputs / "class_map.json"), "--out", str(tmp_path / "run")]

    def stop(context: RoundContext, samples: Sequence[Sample]) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "decide", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train_loop.main(arguments)
    assert train_loop.main(arguments) == 0
    assert decisions(RunFolder(tmp_path / "run")) == decisions(by_class_map)


def test_a_detector_that_strays_from_the_base_is_not_handed_over(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base agrees with itself on mirrored photos; what it taught finds something else. W&B is told as well."""

    def find_otherwise(labeler: DetectorLabeler, inputs: Sequence[LabelInput]) -> list[Instances]:
        found = find_bright(labeler, inputs)
        if "ball" in labeler.model.names.values():  # the base
            return found
        return [Instances.from_masks(one.masks & (np.arange(80) < 20), one.class_ids) for one in found]

    monkeypatch.setattr(DetectorLabeler, "label", find_otherwise)
    config = write_config(inputs, "strays", detector=WITH_MAP, wandb={"mode": "offline"})
    run = RunFolder(tmp_path / "run")
    for _ in range(2):  # again: it is finished
        assert train_loop.main([str(config), "--out", str(run.path)]) == 0
        out = capsys.readouterr().out
        assert "verdict: FAILED. No checkpoint was promoted: its labels of the validation photos agree" in out
        assert "next: Use the detector that the run began with." in out
        assert [row["promoted"] for row in read_jsonl(run.metrics)] == [False], "no second round with the same labels"
        assert not run.best.exists() and not run.dataset.exists()
        assert "the run began with" in run.report.read_text(encoding="utf-8")


def test_a_dry_run_of_photos_says_what_it_would_do(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(inputs, "dry", labelled="labelled")
    assert train_loop.main([str(config), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "rounds: 2, each of the photos" in said and "labelled images" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "nobody can label photos to begin with: base.safetensors does not know balloon"),
        ({"pool": None}, "setting 'model' is missing; add it to the config, or give photos"),
        (
            {"prompts": {"templates": ["a {x}"], "objects": {"x": {"balloon": "b"}}}},
            "'model' is missing, but 'prompts'",
        ),
        ({"concept": {"photos": "photos", "initializer_word": "ball"}}, "'model' is missing, but 'concept' needs one"),
        ({"generate": {"height": 64}}, "'model' is missing, but 'generate' needs one"),
        ({"pool": {"folder": "photos", "objects": {"balloon": "b"}}}, "'pool.objects' is for a loop with a"),
        ({"classes": ["balloon", "kite"], "labelled": "labelled"}, "labelled has no class 'kite'"),
    ],
)
def test_what_is_missing_for_photos_is_named_at_once(
    changes: dict[str, Any], sentence: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(inputs, "wrong", **changes)
    assert sentence in error_of([str(config), "--out", str(tmp_path / "run")], capsys)


def test_a_model_needs_captions_of_the_pool(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = {"folder": "photos", "objects": {"balloon": "balloon"}}
    config = write_config(inputs, "model", model={"path": "some/model"}, pool=pool)
    assert "setting 'pool.captions' is missing" in error_of([str(config), "--out", str(tmp_path / "run")], capsys)


def test_sam3_begins_a_loop_whose_objects_nobody_else_knows(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny random one is loaded; in place of it, which finds noise, what is white is a balloon. The detector that it
    teaches is not compared with it: it is what the user wants."""
    asked: list[Any] = []

    def find(labeler: Sam3Labeler, inputs: Sequence[LabelInput]) -> list[Instances]:
        asked.append(labeler.phrases)
        return find_bright(labeler, inputs)

    monkeypatch.setattr(Sam3Labeler, "label", find)
    model = save_tiny_sam(tmp_path / "sam3", "sam3")
    pool = {"folder": "photos", "sam3": str(model), "objects": {"balloon": ["balloon", "ball"]}}
    config = write_config(inputs, "sam3", pool=pool, rounds={"num_rounds": 1})
    run = RunFolder(tmp_path / "run")
    assert train_loop.main([str(config), "--out", str(run.path)]) == 0
    (row,) = read_jsonl(run.metrics)
    assert row["promoted"] and row["num_kept"] == NUM_PHOTOS - 1 and "val/base_agreement" not in row
    assert asked and all(phrases == [(0, "balloon"), (0, "ball")] for phrases in asked)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labelled": "labelled"}, "'pool.sam3' would not be asked, as 'labelled' begins the loop"),
        ({"model": {"path": "some/model"}}, "'pool.sam3' is for a loop without a diffusion model"),
        ({}, "setting 'pool.sam3': SAM 3 .*nowhere cannot be loaded"),
    ],
)
def test_sam3_where_it_cannot_begin_is_named(
    changes: dict[str, Any], sentence: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = {
        "folder": "photos",
        "sam3": str(tmp_path / "nowhere"),
        "captions": ["a ball"],
        "objects": {"balloon": "ball"},
    }
    if "model" not in changes:
        del pool["captions"]
    config = write_config(inputs, "sam3_wrong", pool=pool, **changes)
    assert re.search(sentence, error_of([str(config), "--out", str(tmp_path / "run")], capsys))


def test_mask2former_begins_where_the_base_detector_does_not_know_the_objects(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = validate(CONFIG, LoopConfig, folder=inputs)
    knowing = SimpleNamespace(known_classes={"balloon"})
    monkeypatch.setattr(labelers, "mask2former_labeler", lambda config: knowing)
    assert first_labeler(config) is knowing
    mapped = validate(CONFIG | {"detector": WITH_MAP}, LoopConfig, folder=inputs)
    assert isinstance(first_labeler(mapped), DetectorLabeler)
    monkeypatch.setattr(labelers, "mask2former_labeler", lambda config: SimpleNamespace(known_classes=set()))
    with pytest.raises(UserError, match="nobody can label"):
        first_labeler(config)
