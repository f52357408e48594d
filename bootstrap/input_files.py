"""Checks of the files that a loop starts from, before any work starts and without a model."""

from __future__ import annotations

from pathlib import Path

from bootstrap.config import LoopConfig
from diffugen.class_maps import shown
from diffugen.datasets.folder import class_names_of, splits_of
from diffugen.errors import UserError, raise_mistakes
from diffugen.images import list_images, read_image


def check_files(config: LoopConfig) -> None:
    """Check that the files that a loop starts from are there.

    Raises:
        UserError: files are not, or do not fit; all of them are named.
    """
    mistakes = []
    for check in (_check_weights, _check_pool, _check_negatives, _check_labelled, _check_evaluation):
        try:
            check(config)
        except UserError as error:
            mistakes.append(str(error))
    raise_mistakes("the config", mistakes)


def _check_weights(config: LoopConfig) -> None:
    weights = config.detector.base_weights
    if not weights.is_file():
        raise UserError(f"setting 'detector.base_weights': {weights} does not exist; give the path of a weights file")
    if weights.suffix == ".onnx":
        raise UserError(f"setting 'detector.base_weights': {weights} cannot be trained further; give the .pt file")


def _check_pool(config: LoopConfig) -> None:
    if config.pool is not None:
        for path in list_images(config.pool.folder, what="setting 'pool.folder':"):
            read_image(path, "setting 'pool.folder': image")


def _check_negatives(config: LoopConfig) -> None:
    if config.negatives is not None:
        for path in list_images(config.negatives, what="setting 'negatives':"):
            read_image(path, "setting 'negatives': image")


def _check_labelled(config: LoopConfig) -> None:
    if config.labelled is None:
        return
    _check_dataset("labelled", config.labelled, "train")
    names = class_names_of(config.labelled)
    if not set(names) & set(config.classes):
        raise UserError(
            f"setting 'labelled': {config.labelled} has none of the classes {shown(config.classes)}, only "
            f"{shown(names)}; give a dataset that is labelled with one of them, or leave 'labelled' out"
        )
    if config.model is None and (missing := [name for name in config.classes if name not in names]):
        raise UserError(
            f"setting 'labelled': {config.labelled} has no class {missing[0]!r}, which round 0 learns from it alone; "
            "label that as well, or take it out of 'classes'"
        )


def _check_evaluation(config: LoopConfig) -> None:
    evaluation = config.evaluation
    if evaluation is None:
        return
    _check_dataset("evaluation.dataset", evaluation.dataset)
    missing = [name for name in config.classes if name not in class_names_of(evaluation.dataset)]
    if missing:
        raise UserError(
            f"setting 'evaluation.dataset': {evaluation.dataset} has no class {missing[0]!r}, "
            "which 'classes' names; give a dataset that is labelled with it"
        )


def _check_dataset(setting: str, dataset: Path, split: str | None = None) -> None:
    if not (dataset / "data.yaml").is_file():
        raise UserError(
            f"setting '{setting}': {dataset} has no data.yaml; give the folder of a labelled dataset, or leave "
            f"'{setting.split('.')[0]}' out"
        )
    splits = splits_of(dataset)
    if not splits or (split is not None and split not in splits):
        wanted = f"split {split!r}" if split else "split"
        raise UserError(f"setting '{setting}': {dataset} has no {wanted}, only {splits}; give another dataset")
