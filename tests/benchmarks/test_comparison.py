"""What the benchmarks of whole rounds compare, without a model: arms, levels, copies of photos, tables."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import comparison
import concept_photos
import diversity
import filter as filter_benchmark
import pytest
from comparison import epochs_for, markdown, mean_rows, seeded_configs, steps_of, trained_scores
from round_samples import make_generated, make_instances

from bootstrap.disagreement import Judgement
from bootstrap.run_folder import RunFolder
from bootstrap.samples import decided
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from diffugen.images import list_images
from diffugen.prompts.templates import sample_prompts
from diffugen.sample import Outcome, Sample, write_samples
from train_loop import RunConfig, load_run_config

DEMO = Path(__file__).parents[2] / "configs/demo.json"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    truth = tmp_path_factory.mktemp("truth")
    (truth / "data.yaml").write_text("names: [grand-piano, car, tent]\ntest: images/test\n")
    return load_run_config(DEMO, [f"evaluation.dataset={truth}"])


def make_samples(folder: Path, outcomes: list[Outcome], detector: bool = True) -> list[Sample]:
    labels = make_instances([0, 1])
    encoded = {"attention": make_instances([1, 0]).to_json()} | ({"detector": labels.to_json()} if detector else {})
    return [
        decided(
            make_generated(folder, number, [0, 1], "r01_"),
            Judgement(outcome, "" if outcome == "keep" else "too_few:car", labels),
            "detector",
            encoded,
        )
        for number, outcome in enumerate(outcomes)
    ]


def test_a_benchmark_without_truth_is_refused() -> None:
    args = argparse.Namespace(config=DEMO, set=["evaluation=null"], seeds=1, num_images=None)
    with pytest.raises(UserError, match="evaluation.dataset"):
        next(seeded_configs(args))


def test_as_many_steps_whatever_the_number_of_images(demo: RunConfig) -> None:
    steps = steps_of(80, demo)
    assert steps == demo.detector.epochs * 10
    assert epochs_for(steps, 80, demo) == demo.detector.epochs
    assert epochs_for(steps, 160, demo) == demo.detector.epochs / 2
    assert epochs_for(1, 160, demo) == 1


def test_tables_have_means_and_spreads_over_seeds() -> None:
    rows = [
        {"level": "few", "seed": 0, "score": 0.1},
        {"level": "many", "seed": 0, "score": None},
        {"level": "few", "seed": 1, "score": 0.3},
    ]
    table = mean_rows(rows, "level")
    assert table["few"]["score"] == pytest.approx({"mean": 0.2, "std": 0.1})
    assert markdown(table, "level", {"mAP": "score"}).splitlines() == [
        "| level | mAP |",
        "|---|---|",
        "| few | 0.200 ± 0.100 |",
        "| many | - |",
    ]


def test_a_detector_is_trained_once_and_again_when_images_or_steps_change(
    demo: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def finetune(base: Path, data: Path, out: Path, detector: Any, *, seed: int, workdir: Path) -> None:
        workdir.mkdir()
        trained.append(detector.epochs)

    monkeypatch.setattr(comparison, "finetune", finetune)
    scores = {"grand-piano": {"mask_map50": 0.5, "mask_map50_95": 0.25}}
    monkeypatch.setattr(comparison, "evaluate_detector", lambda *args, **options: scores)
    for num_images, steps in ((80, 140), (80, 140), (160, 140)):
        found = trained_scores(demo, lambda path: None, num_images, steps, tmp_path)
        assert found == {"num_images": num_images, "steps": steps, "mask_map50": 0.5, "mask_map50_95": 0.25}
    assert trained == [14, 7]


def test_levels_of_diversity_have_more_and_more_prompts(demo: RunConfig) -> None:
    prompts = {
        name: sample_prompts(diversity.narrowed(demo.prompts, *sizes), 400, seed=0)
        for name, sizes in diversity.LEVELS.items()
    }
    numbers = [len({prompt.text for prompt in drawn}) for drawn in prompts.values()]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))
    assert prompts["everything"] == sample_prompts(demo.prompts, 400, seed=0)


def test_the_arms_of_the_filter_have_as_many_images_and_steps(
    demo: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    outcomes: list[Outcome] = ["keep", "reject", "review", "keep", "reject", "reject"]
    by_attention = make_samples(run.round(0).path, ["keep"], detector=False)
    by_agreement = make_samples(run.round(1).path, outcomes)
    photo = replace(by_agreement[0], task="photo")
    for index, samples in enumerate((by_attention, [*by_agreement, photo])):
        write_samples(run.round(index).samples, samples)
        write_json(run.round(index).metrics, {})
    given: dict[str, tuple[list[Sample], int]] = {}

    def samples_trained(config: RunConfig, samples: list[Sample], out: Path, steps: int) -> dict[str, float]:
        given[out.name] = samples, steps
        return {"mask_map50": 0.0}

    monkeypatch.setattr(filter_benchmark, "samples_trained", samples_trained)
    rows = filter_benchmark.measure_detectors(demo, run, tmp_path / "filter")
    assert [row["trained on"] for row in rows] == ["kept", "as many at random", "all", "kept, their own masks"]
    assert [len(samples) for samples, _ in given.values()] == [2, 2, 6, 2]
    assert {steps for _, steps in given.values()} == {steps_of(2, demo)}
    for name in ("kept", "kept_their_own_masks"):
        assert {sample.name for sample in given[name][0]} == {"r01_000000", "r01_000003"}
    by_agreement = {sample.name: sample for sample in by_agreement}
    assert all(sample.encoded == by_agreement[sample.name].encoded for sample in given["kept_their_own_masks"][0])
    assert all(sample.encoded == by_agreement[sample.name].encoded_labels["attention"] for sample in given["all"][0])
    assert all(sample.kept and sample.split == "train" for samples, _ in given.values() for sample in samples)


def test_labels_are_measured_by_outcome_and_reason(tmp_path: Path) -> None:
    samples = make_samples(tmp_path, ["keep", "reject"])
    truths = {"000000": make_instances([0, 1]), "000001": make_instances([0])}
    rows = {row["images"]: row for row in filter_benchmark.label_rows("agreement", samples, truths)}
    assert list(rows) == [
        "agreement: all",
        "agreement: keep",
        "agreement: reject",
        "agreement: reject (too_few:car)",
    ]
    assert rows["agreement: keep"] == {
        "images": "agreement: keep", "share": 0.5, "mean_iou": 1.0, "precision": 1.0, "recall": 1.0,
    }  # fmt: skip
    assert rows["agreement: reject"]["precision"] == 0.5
    assert rows["agreement: all"]["precision"] == 0.75


def test_fewer_photos_are_the_first_of_more_and_the_pool_has_the_same(demo: RunConfig, tmp_path: Path) -> None:
    few, more = (concept_photos.with_photos(demo, num, True, tmp_path) for num in (3, 6))
    (concept,) = few.concept
    assert few.pool is not None and more.pool is not None
    assert few.pool.folder == concept.photos
    assert concept.lora_rank == 4
    shown = {path.name: path.read_bytes() for path in list_images(more.pool.folder)}
    first = {path.name: path.read_bytes() for path in list_images(few.pool.folder)}
    assert len(first) == 3
    assert first.items() <= shown.items()


def test_photos_count_as_often_in_every_cell(demo: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def samples_trained(config: RunConfig, samples: Any, out: Path, steps: int, repeats: int) -> dict[str, float]:
        given.append((steps, repeats))
        return {}

    monkeypatch.setattr(concept_photos, "samples_trained", samples_trained)
    monkeypatch.setattr(concept_photos, "first_round", lambda *args: [])
    monkeypatch.setattr(concept_photos, "prepare_pipeline", lambda config, run: (None, config))
    for num_photos in (1, 3, 12, 12):  # the last cell is there already
        row = concept_photos.measure(demo, num_photos, False, tmp_path)
    assert given == [(steps_of(demo.rounds.num_images + 48, demo), repeats) for repeats in (48, 16, 4)]
    assert row == read_json(tmp_path / "12_photos/row.json")
