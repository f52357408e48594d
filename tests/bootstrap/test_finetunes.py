"""A round's detectors are made by workers as by one process, and each is noted when it is finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loop_run import CLASSES

from bootstrap import finetunes
from bootstrap.checksums import is_as_noted
from bootstrap.context import RoundContext
from bootstrap.finetunes import FineTune, detector_executor, fine_tune_all
from bootstrap.run_folder import RunFolder
from diffugen.config.executor import ExecutorConfig
from diffugen.datasets.folder import read_dataset, write_dataset
from diffugen.detector.model import load_detector
from diffugen.errors import UserError
from diffugen.executor import local_pool
from diffugen.executor.base import Shard
from diffugen.files import read_json
from diffugen.sample import Sample
from train_loop import load_run_config


@pytest.fixture
def context(loop_inputs: Path, tmp_path: Path) -> RoundContext:
    run = RunFolder(tmp_path / "run")
    config = load_run_config(loop_inputs / "config.json", ["executor.num_workers=1"])
    return RoundContext(config, run, run.round(0), "attention", "")


def wanted(context: RoundContext, inputs: Path, num: int = 2) -> list[FineTune]:
    """The round's detector, and those of folds; they differ by their seeds."""
    folder = context.folder
    return [
        FineTune(
            title="",
            base=context.config.detector.base_weights,
            dataset=inputs / "truth",
            weights=folder.fold(number - 1) if number else folder.weights,
            settings=context.config.detector,
            seed=number,
            workdir=folder.scratch / str(number),
        )
        for number in range(num)
    ]


def states(fine_tunes: list[FineTune]) -> list[dict[str, torch.Tensor]]:
    return [load_detector(one.weights).model.state_dict() for one in fine_tunes]  # type: ignore[union-attr]


@pytest.fixture
def trainable(loop_inputs: Path, tmp_path: Path) -> Path:
    """A folder with a dataset that has a train split."""
    truth = read_dataset(loop_inputs / "truth", "test")
    write_dataset(tmp_path / "truth", (Sample.labelled(*one, "train") for one in truth), CLASSES)
    return tmp_path


def test_workers_make_the_detectors_that_one_process_makes(
    context: RoundContext, trainable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "USER_THREADS", str(torch.get_num_threads()))  # as this process computes
    fine_tunes = wanted(context, trainable)
    alone = replace(context, config=context.config.model_copy(update={"executor": None}))
    fine_tune_all(alone, fine_tunes)
    expected = states(fine_tunes)
    for one in fine_tunes:
        assert is_as_noted(context.folder, one.weights)
        one.weights.unlink()
    context.folder.checksums.unlink()
    monkeypatch.setattr(FineTune, "make", None)  # by this process
    fine_tune_all(context, fine_tunes)
    for found, state in zip(states(fine_tunes), expected, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in found.items())
    assert all(is_as_noted(context.folder, one.weights) for one in fine_tunes)
    assert not context.folder.scratch.exists() and not context.folder.shards.exists()


def test_what_is_finished_is_kept_where_another_fails(context: RoundContext, trainable: Path) -> None:
    first, second = wanted(context, trainable)
    broken = replace(second, dataset=trainable / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        fine_tune_all(context, [first, broken])
    assert list(read_json(context.folder.checksums)) == ["weights/best.pt"]
    fine_tune_all(context, [first, second])
    assert second.weights.is_file()


def test_devices_that_are_named_are_used_by_this_process(
    context: RoundContext, trainable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(FineTune, "make", lambda one: made.append(one.seed))
    monkeypatch.setattr(finetunes, "run_job", None)
    monkeypatch.setattr(finetunes, "note_finished", lambda folder, weights: None)
    detector = context.config.detector.model_copy(update={"device": "0,1"})
    config = context.config.model_copy(update={"detector": detector})
    fine_tune_all(replace(context, config=config), wanted(context, trainable))
    assert made == [0, 1]


@pytest.mark.parametrize(("device", "share"), [("auto", 0.5), ("cpu", None)])
def test_the_last_detector_of_several_is_made_by_workers_too(
    context: RoundContext, trainable: Path, monkeypatch: pytest.MonkeyPatch, device: str, share: float | None
) -> None:
    made: list[tuple[int, float | None]] = []

    def run_job(job: object, shards: list[Shard], folder: Path, executor: ExecutorConfig, **options: object) -> list:
        made.extend((shard.items[0].seed, executor.gpus_per_worker) for shard in shards)
        return []

    monkeypatch.setattr(finetunes, "run_job", run_job)
    monkeypatch.setattr(local_pool, "visible_gpus", lambda: ["0"])
    first, second = wanted(context, trainable)
    first.weights.parent.mkdir(parents=True)
    first.weights.touch()
    settings = context.config
    assert settings.executor is not None
    executor = settings.executor.model_copy(update={"gpus_per_worker": 0.5})
    detector = settings.detector.model_copy(update={"device": device})
    config = settings.model_copy(update={"executor": executor, "detector": detector})
    fine_tune_all(replace(context, config=config), [first, second])
    assert made == [(1, share)]


def test_more_workers_than_fit_are_refused_before_a_run_begins(context: RoundContext) -> None:
    executor = ExecutorConfig(num_workers=999)
    with pytest.raises(UserError, match="'executor.num_workers' is 999, but this machine has"):
        detector_executor(context.config.model_copy(update={"executor": executor}))


def test_a_detector_without_its_record_is_not_made_again(context: RoundContext, trainable: Path) -> None:
    """A worker that ends between the two has removed the fold's dataset."""
    (one,) = wanted(context, trainable, 1)
    one.weights.parent.mkdir(parents=True)
    one.weights.write_bytes(b"finished")
    job = finetunes.FineTuneJob(context.folder.path)
    gone = replace(one, dataset=trainable / "nowhere")
    assert job.load()([gone], lambda num, made=True: None) == [{"weights": "best.pt"}]
    assert one.weights.read_bytes() == b"finished" and job.title(gone) == "weights/best.pt"
