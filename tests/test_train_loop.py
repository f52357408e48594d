"""The whole loop on a tiny random model: its folder, its errors, and who may see the truth."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from loop_run import decisions, error_of, metrics_without

import train_loop
from bootstrap.evidence import Evidence
from bootstrap.row import CONFUSION, MEASURES, Row
from bootstrap.run_folder import RunFolder
from bootstrap.tracking import Tracker
from diffugen.attention.heatmaps import attention_of
from diffugen.config.loader import load_config
from diffugen.detector.model import load_detector, threshold_of
from diffugen.files import link_tree, read_json, read_jsonl, write_json
from diffugen.outputs import claim_output
from diffugen.sample import read_samples
from textual_inversion.config import ConceptConfig


def test_every_number_of_a_row_is_described(finished_loop: RunFolder) -> None:
    classes = "|".join(("piano", "car"))
    for row in read_jsonl(finished_loop.metrics):
        assert set(row) >= Row.__required_keys__
        measures = {re.sub(rf"^(test|val)/({classes})/", r"\1/", key) for key in row.keys() - Row.__annotations__}
        assert measures - {"test/by_attribute", CONFUSION} <= set(MEASURES)


def test_a_run_leaves_the_folder_that_the_design_describes(finished_loop: RunFolder) -> None:
    rounds = finished_loop.complete_rounds()
    assert [folder.index for folder in rounds] == [0, 1]
    for folder in rounds:
        for sample in read_samples(folder.samples):
            assert sample.pixels().shape == (64, 96, 3)
            assert len(attention_of(sample).heatmaps) == len(sample.prompt.objects)
            assert (folder.masks / sample.image_path.name).is_file()
        assert (folder.dataset / "data.yaml").is_file() and (folder.dataset / "coco" / "train.json").is_file()
        assert not (folder.path / "finetune").exists()
    assert (finished_loop.concept / "learned_embeds.safetensors").is_file()
    assert (
        finished_loop.best.is_file()
        and (finished_loop.dataset / "data.yaml").is_file()
        and finished_loop.report.is_file()
    )
    assert read_json(finished_loop.config)["config"]["seed"] == 3


def test_rows_of_metrics_have_what_was_promised(finished_loop: RunFolder) -> None:
    rows = read_jsonl(finished_loop.metrics)
    assert [(row["labeler"], row["labels_from"]) for row in rows] == [
        ("attention", "attention"),
        ("consensus", "detector"),
    ]
    assert all(0 <= row["val/image_agreement"] <= 1 for row in rows)
    assert rows[0]["promoted"] is True
    for row in rows:
        assert row["num_generated"] == 8 == row["num_kept"] + row["num_rejected"] + row["num_review"]
        assert sum(row["rejected"].values()) == row["num_rejected"]
        assert {"generate", "label"} <= set(row["seconds"])
    assert {"test/mask_map50", "test/mask_map50_95", "test/box_map50", "test/car/mask_map50"} <= set(rows[0])
    assert {"val/mean/mask_map50_95", "val/piano/mask_map50_95"} <= set(rows[0])


def test_each_round_is_judged_on_the_photos_of_the_concept(finished_loop: RunFolder) -> None:
    rows = read_jsonl(finished_loop.metrics)
    for folder, row in zip(finished_loop.complete_rounds(), rows, strict=True):
        evidence = Evidence.read(folder.evidence)
        assert [photo.judge for photo in evidence.photos] == ["checkpoint"] * 2
        assert {photo.class_name for photo in evidence.photos} == {"piano"}
        assert row["photos/num"] == 2 and row["photos/threshold"] == evidence.threshold
        assert row["verdict"]["level"] == "failed" and "on 0 of 2 photos" in row["verdict"]["reasons"][0]
        assert threshold_of(load_detector(folder.weights)) == evidence.threshold


def test_rows_of_metrics_have_the_objective_measures(finished_loop: RunFolder) -> None:
    rows = read_jsonl(finished_loop.metrics)
    assert {"test/labels/attention/mean_iou", "test/labels/attention/recall"} <= set(rows[0])
    for row in rows:
        assert 1 <= row["images/vendi_score"] <= 8 and 0 <= row["images/near_duplicate_fraction"] < 1
        assert {"images/kept/mean_distance", "images/rare/kernel_distance_photos"} <= set(row)
        assert {"test/images/kernel_distance", "test/labels/detector/recall"} <= set(row)
        times = row["balance"]["time"]
        assert set(times["values"]) == {"at night", "in the rain", "(none)"} and 0 < times["p_value"] <= 1
        assert sum(value["generated"] for value in times["values"].values()) <= 8
        by_time = row["test/by_attribute"]["time"]
        assert {name: value["num_images"] for name, value in by_time.items()} == {"day": 1, "night": 1}
        assert "mask_map50_95" in by_time["night"]


def test_the_validation_split_is_frozen_and_never_trained_on(finished_loop: RunFolder) -> None:
    first, second = finished_loop.complete_rounds()
    frozen = {sample.name for sample in read_samples(first.samples) if sample.split == "val"}
    assert frozen and not any(sample.split == "val" for sample in read_samples(second.samples))
    for folder in (first, second):
        names = {
            split: {path.stem for path in (folder.dataset / "images" / split).iterdir()} for split in ("train", "val")
        }
        assert names["val"] == frozen
        assert not names["train"] & frozen
        assert names["train"]
    assert (first.dataset / "coco" / "val.json").read_bytes() == (second.dataset / "coco" / "val.json").read_bytes()


def test_a_finished_run_given_again_changes_nothing(finished_loop: RunFolder, loop_inputs: Path) -> None:
    before, rows = decisions(finished_loop), read_jsonl(finished_loop.metrics)
    assert train_loop.main([str(loop_inputs / "config.json"), "--out", str(finished_loop.path)]) == 0
    assert decisions(finished_loop) == before
    assert read_jsonl(finished_loop.metrics) == rows


def test_a_failure_of_tracking_is_in_the_summary_and_the_report(
    finished_loop: RunFolder,
    loop_inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(tracker: Tracker, rows: list[Row]) -> None:
        tracker.problems.append("W&B: nothing arrived")

    monkeypatch.setattr(Tracker, "finish", fail)
    run = RunFolder(tmp_path / "run")
    link_tree(finished_loop.path, run.path)
    assert train_loop.main([str(loop_inputs / "config.json"), "--out", str(run.path)]) == 0
    assert "W&amp;B: nothing arrived" in run.report.read_text()
    assert capsys.readouterr().out.endswith("W&B: nothing arrived\n")


def test_the_truth_is_for_reporting_only(finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path) -> None:
    config = read_json(loop_inputs / "config.json")
    blind = tmp_path / "blind.json"
    values = config | {"evaluation": None, "concept": config["concept"] | {"photos": str(loop_inputs / "photos")}}
    values["detector"] = config["detector"] | {"base_weights": str(loop_inputs / "base.safetensors")}
    blind.write_text(json.dumps(values))
    assert train_loop.main([str(blind), "--out", str(tmp_path / "run")]) == 0
    run = RunFolder(tmp_path / "run")
    assert decisions(run) == decisions(finished_loop)
    assert metrics_without(run, "seconds") == metrics_without(finished_loop, "seconds", "test/")


def test_attention_may_judge_generated_images_and_all_labelers_photos(loop_inputs: Path, tmp_path: Path) -> None:
    config, photos = read_json(loop_inputs / "config.json"), str(loop_inputs / "photos")
    values = config | {"evaluation": None, "concept": config["concept"] | {"photos": photos}}
    values["detector"] = config["detector"] | {"base_weights": str(loop_inputs / "base.safetensors")}
    values["pool"] = {"folder": photos, "captions": ["a photo of a <piano>"], "objects": {"piano": ["<piano>"]}}
    values["rounds"] = config["rounds"] | {"filter": {"min_score": 0.0, "by": "attention"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert train_loop.main([str(tmp_path / "config.json"), "--out", str(tmp_path / "run")]) == 0
    run = RunFolder(tmp_path / "run")
    _, second = run.complete_rounds()
    row = read_json(second.metrics)
    assert row["labels_from"] == "detector" and "generated images keep attention's labels" in row["labels_why"]
    assert "generated images keep attention" in run.report.read_text(encoding="utf-8")
    samples = read_samples(second.samples)
    assert {sample.labeler for sample in samples if not sample.is_photo} == {"attention"}
    photos_of_round = [sample for sample in samples if sample.is_photo]
    assert len(photos_of_round) == 2
    assert all({"attention", "detector", "flipped"} <= set(photo.encoded_labels) for photo in photos_of_round)
    assert not second.relabelled(0).exists()
    for folder in (run.round(0), second):  # each photo is judged by a detector that was trained on the other one
        evidence = Evidence.read(folder.evidence)
        assert sorted(photo.judge for photo in evidence.photos) == ["fold 0", "fold 1"]
        assert all(photo.trained_score is not None for photo in evidence.photos)
        assert folder.fold(0).is_file() and folder.fold(1).is_file() and not folder.scratch.exists()
        names = {sample.name for sample in read_samples(folder.samples)}
        assert {one.name for one in evidence.negatives if one.name in names}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rounds.num_round=2", "unknown setting 'rounds.num_round'; did you mean 'num_rounds'?"),
        ("concept.photos=nowhere", "concept.photos"),
        ("concept.placeholder_token=<harp>", "'concept.placeholder_token': '<harp>' is in no prompt"),
        ("detector.base_weights=nothing.pt", "'detector.base_weights'"),
        ("model.path=./nothing", "model.path"),
        ('rounds.filter.mask2former={"model": "./nothing"}', "'rounds.filter.mask2former'"),
        ("evaluation.dataset=nothing", "'evaluation.dataset'"),
        (
            'prompts.templates.0.text=("a photo of a {rare} {time}", "a road++ at night").and()',
            "uses more of compel than weights",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(
    loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, sentence: str
) -> None:
    arguments = [str(loop_inputs / "config.json"), "--out", str(tmp_path / "run"), "--set", setting]
    assert sentence in error_of(arguments, capsys)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(("name", "content"), [("empty", None), ("corrupt", b"\x89PNG\r\n\x1a\n no picture")])
def test_photos_are_checked_before_any_work(
    loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    photos = tmp_path / name
    photos.mkdir()
    if content is not None:
        (photos / "0.png").write_bytes(content)
    arguments = [
        str(loop_inputs / "config.json"),
        "--out",
        str(tmp_path / "run"),
        "--set",
        f"concept.photos={photos}",
    ]
    assert "concept.photos" in error_of(arguments, capsys)


def test_a_rare_object_with_a_plain_word_needs_no_concept(loop_inputs: Path, tmp_path: Path) -> None:
    settings = [
        "concept=null",
        "evaluation=null",
        "rounds.num_rounds=1",
        'prompts.objects.rare.piano=["grand piano"]',
    ]
    arguments = [str(loop_inputs / "config.json"), "--out", str(tmp_path / "run")]
    for setting in settings:
        arguments += ["--set", setting]
    assert train_loop.main(arguments) == 0
    assert RunFolder(tmp_path / "run").best.is_file()
    assert not RunFolder(tmp_path / "run").concept.exists()


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files_of(loop_inputs)
    assert train_loop.main([str(loop_inputs / "config.json"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "concept: <piano> from " in said and f"run folder: {tmp_path / 'runs' / 'tiny'} (new)" in said
    assert "classes: piano, car (new to base.safetensors: piano)" in said
    assert "rounds: 2, each of 8 generated images" in said and "prompts of round 0 (1 of 2):" in said
    assert "[<piano> -> piano]" in said and "8 images of 96x64 pixels" in said
    assert "time: about " in said and "GPU memory: about " in said
    assert not list(tmp_path.iterdir()) and files_of(loop_inputs) == before


def test_a_dry_run_finds_mistakes(loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(loop_inputs / "config.json"), "--out", str(tmp_path / "run"), "--dry-run", "--set"]
    assert "is in no prompt" in error_of([*arguments, "concept.placeholder_token=<harp>"], capsys)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    assert "has files that diffugen did not write" in error_of([*arguments, "seed=3"], capsys)


def test_a_dry_run_fetches_no_model(
    loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checker = 'rounds.filter.mask2former={"model": "somebody/checker"}'
    assert (
        train_loop.main([str(loop_inputs / "config.json"), "--dry-run", "--set", "model.path=some/body", checker]) == 0
    )
    assert "unknown, as model.path 'some/body' is not on this machine" in capsys.readouterr().out


def test_a_dry_run_of_a_run_that_is_there_says_what_is_left(
    finished_loop: RunFolder, loop_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(finished_loop.path)
    arguments = [str(loop_inputs / "config.json"), "--out", str(finished_loop.path), "--dry-run"]
    assert train_loop.main(arguments) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert train_loop.main([*arguments, "--set", "rounds.num_rounds=3"]) == 0
    said = capsys.readouterr().out
    assert "(resumes after 2 of 3 rounds)" in said and "rounds: 1, each of 8" in said and "round 2 (3 of 3)" in said
    assert files_of(finished_loop.path) == before
    fewer = error_of([*arguments, "--set", "rounds.num_rounds=1"], capsys)
    assert "'rounds.num_rounds' is 1, but" in fewer and "has 2 complete rounds; give as many or more" in fewer
    assert "'label.min_area_fraction' changed" in error_of([*arguments, "--set", "label.min_area_fraction=0.1"], capsys)


def test_a_run_folder_that_leads_elsewhere_is_refused(
    loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim_output(tmp_path / "run", "loop")
    (tmp_path / "run" / "concept").symlink_to(tmp_path)
    before = files_of(tmp_path)
    for more in ([], ["--dry-run"]):
        message = error_of([str(loop_inputs / "config.json"), "--out", str(tmp_path / "run"), *more], capsys)
        assert "concept is a symbolic link that leads out" in message
    assert files_of(tmp_path) == before


def test_a_run_whose_concept_draws_nothing_stops_before_it_generates(
    finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    for name in ("concept", "config.json"):
        subprocess.run(["cp", "-a", finished_loop.path / name, run.path], check=True)
    write_json(run.concept / "fidelity.json", {"score": 0.03, "by_step": {"4": 0.03}})  # a random model's is anything
    arguments = [str(loop_inputs / "config.json"), "--out", str(run.path)]
    said = error_of([*arguments, "--set", "concept.on_failure=stop"], capsys)
    assert "error: The concept failed: images of <piano> have come 3% of the way from 'tent'" in said
    assert "initializer_word" in said and "--set concept.on_failure=continue" in said and "steps (now" in said
    assert not run.round(0).path.exists()
    page = run.report.read_text()
    assert "Nothing was generated." in page and "reloads itself" not in page
    config = train_loop.load_run_config(loop_inputs / "config.json")
    assert train_loop.failed_concept(config, run) is None, "the config says to continue"
    (shown,) = train_loop.object_photos(config, run)
    assert shown.failure is not None and "have come 3%" in shown.failure[0] and "initializer_word" in shown.failure[1]
    (undamaged,) = train_loop.object_photos(config, RunFolder(tmp_path / "other"))
    assert undamaged.failure is None, "nothing was measured"
    assert "fidelity.json" in read_json(finished_loop.concept / "concept.json")["sha256"]


def test_a_start_word_is_chosen_once_and_recorded(
    finished_loop: RunFolder, loop_inputs: Path, tmp_path: Path, tiny_pipeline: StableDiffusionPipeline
) -> None:
    config = train_loop.load_run_config(loop_inputs / "config.json", ["concept.initializer_word=null"])
    chosen = train_loop.with_start_words(config, tiny_pipeline)
    assert chosen.concept[0].start_word in ("car", "tent"), "one of the base detector's classes"
    assert train_loop.with_start_words(chosen, tiny_pipeline) == chosen
    resumed = finished_loop.resumed(config)
    assert resumed.concept[0].start_word == "tent", "a run that is resumed keeps the word that it was started with"
    assert config.prompts is not None
    prompts = config.prompts.model_copy(update={"attributes": {**config.prompts.attributes, "other": ("bench",)}})
    words: dict[str, Any] = {"car": ("bench",), "tree": {"bench": 1.0, "tree": 0.5}, "bench": ("bench",)}
    for word, others in words.items():
        concept = config.concept[0].model_copy(update={"initializer_word": word})
        changed = config.model_copy(update={"prompts": prompts, "concept": (concept,)})
        found = train_loop.with_other_things(changed)
        assert found.prompts is not None and found.prompts.attributes["other"] == others, "what it starts from is shown"
    sd15 = load_config(Path(train_loop.__file__).parent / "configs/grand-piano-sd15.json", train_loop.RunConfig)
    assert sd15.concept[0].start_word == "piano" and train_loop.with_other_things(sd15) == sd15, "it shows the object"


def test_the_chosen_start_word_is_what_is_learned(
    loop_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to learning, which is checked elsewhere."""
    learned: list[str] = []

    def learn(concepts: Sequence[ConceptConfig], *arguments: Any, **options: Any) -> None:
        learned.extend(concept.start_word for concept in concepts)
        raise KeyboardInterrupt

    monkeypatch.setattr("textual_inversion.learn.learn_concepts", learn)
    config = train_loop.load_run_config(loop_inputs / "config.json", ["concept.initializer_word=null"])
    for _ in range(2):  # the second goes on
        with pytest.raises(KeyboardInterrupt):
            train_loop.train_loop(config, tmp_path / "run")
    assert len(learned) == 2 and learned[0] == learned[1] in ("car", "tent")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The run stopped (learning the concept): KeyboardInterrupt." in page and "reloads itself" not in page


def test_the_script_runs_the_module_that_workers_can_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_loop, "main", lambda: 7)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(train_loop.__file__)), run_name="__main__")
    assert ended.value.code == 7
