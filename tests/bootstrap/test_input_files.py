"""Checks of the files that a loop starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.config import LoopConfig
from bootstrap.input_files import check_files
from diffugen.config.loader import validate
from diffugen.errors import UserError, UserErrors

VALID = {
    "name": "piano",
    "classes": ["piano", "car"],
    "model": {"path": "some/model"},
    "detector": {"base_weights": "base.safetensors"},
}


def write_dataset_yaml(folder: Path, split: str = "test", names: str = "{0: piano, 1: car}") -> None:
    folder.mkdir()
    (folder / "data.yaml").write_text(f"train: images/{split}\n{split}: images/{split}\nnames: {names}\n")


def test_missing_files_are_found_before_any_work(tmp_path: Path) -> None:
    config = validate(VALID | {"evaluation": {"dataset": "truth"}}, LoopConfig, folder=tmp_path)
    with pytest.raises(UserErrors, match=r"2 mistakes:\n  .*'detector.base_weights': .*\n  .*'evaluation.dataset': "):
        check_files(config)
    (tmp_path / "base.safetensors").touch()
    with pytest.raises(UserError, match=r"'evaluation.dataset': .*truth has no data.yaml"):
        check_files(config)
    write_dataset_yaml(tmp_path / "truth")
    check_files(config)


def test_the_evaluation_set_must_fit_the_run(tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").touch()
    write_dataset_yaml(tmp_path / "other_split", split="val")
    config = validate(VALID | {"evaluation": {"dataset": "other_split"}}, LoopConfig, folder=tmp_path)
    check_files(config)
    assert config.evaluation is not None and config.evaluation.split == "val"
    write_dataset_yaml(tmp_path / "other_names", names="{0: piano}")
    config = validate(VALID | {"evaluation": {"dataset": "other_names"}}, LoopConfig, folder=tmp_path)
    assert config.evaluation is not None and config.evaluation.split == "test"
    with pytest.raises(UserError, match="has no class 'car'"):
        check_files(config)


def test_labelled_images_have_a_training_split(tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").touch()
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "data.yaml").write_text("val: images/val\nnames: {0: piano, 1: car}\n")
    config = validate(VALID | {"labelled": "drawn"}, LoopConfig, folder=tmp_path)
    with pytest.raises(UserError, match=r"'labelled': .*drawn has no split 'train'"):
        check_files(config)


def test_labelled_images_have_a_class_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "base.safetensors").touch()
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "data.yaml").write_text("train: images/train\nnames: {0: harp, 1: lute}\n")
    config = validate(VALID | {"labelled": "drawn"}, LoopConfig, folder=tmp_path)
    with pytest.raises(UserError, match=r"'labelled': .*drawn has none of the classes piano, car, only harp, lute;"):
        check_files(config)
