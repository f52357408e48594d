"""Variations of kept images as further images of later rounds, on a tiny random model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_run import CONFIG
from round_samples import CLASSES, make_instances

from bootstrap.config import LoopConfig
from bootstrap.prompts import check_prompts
from bootstrap.rounds import run_rounds
from bootstrap.run_folder import RunFolder
from bootstrap.variations import plan_round_variations, samples_to_vary
from diffugen.config.loader import validate
from diffugen.config.settings import PromptsConfig
from diffugen.detector.model import new_detector, save_detector
from diffugen.errors import UserError
from diffugen.files import read_json, read_jsonl, write_json, write_jsonl
from diffugen.generation import batches as generate
from diffugen.generation.inpainting import repaint_region
from diffugen.instances import Instances
from diffugen.sample import Sample, read_samples, write_samples

REDRAWN = {
    "kind": "img2img",
    "strength": 0.5,
    "templates": ["{source} {time}"],
    "attributes": {"time": ["in the rain"]},
    "num_images": 3,
}
REPAINTED = {
    "kind": "inpaint",
    "templates": ["a house and a {object} {source_time}"],
    "num_images": 4,
}


def loop_config(folder: Path, *variations: dict[str, Any], **rounds: Any) -> LoopConfig:
    values = {
        "name": "test",
        "seed": 9,  # five of eight images are kept, so that a few more or less by rounding do not matter
        "classes": CLASSES,
        "rare_classes": ["piano"],
        "model": {"path": "unused"},
        "prompts": {
            "templates": ["a photo of a {rare} beside a {common} {time}"],
            "objects": {"rare": {"piano": "grand piano"}, "common": {"car": ["red car", "blue car"]}},
            "attributes": {"time": ["at night", "by day", "under a sky"]},
        },
        "generate": {"height": 64, "width": 96, "num_inference_steps": 2, "guidance_scale": 3, "batch_size": 2},
        # A random model's attention is noise; smeared over the image, every phrase has its one component.
        "label": {"method": "paper", "min_area_fraction": 0.1},
        "detector": CONFIG["detector"] | {"base_weights": str(folder / "base.safetensors")},
        "rounds": {
            "num_rounds": 2,
            "num_images": 8,
            "switch_agreement": 1.0,
            "filter": {"min_score": 0.0},
            "variations": list(variations),
            **rounds,
        },
    }
    return validate(values, LoopConfig)


@pytest.fixture(scope="module")
def pipe(make_tiny_pipeline: Callable[[], Any]) -> Any:
    return make_tiny_pipeline()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> LoopConfig:
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    save_detector(new_detector(["car", "tent"]), folder / "base.safetensors")
    return loop_config(folder, REDRAWN, REPAINTED)


@pytest.fixture(scope="module")
def finished(pipe: Any, config: LoopConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody disturbed; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "undisturbed")
    assert len(list(run_rounds(config, pipe, run))) == 2
    return run


def varied(run: RunFolder) -> list[Sample]:
    return [sample for sample in read_samples(run.round(1).samples) if sample.is_variation]


def test_a_round_has_variations_of_what_earlier_rounds_kept(finished: RunFolder) -> None:
    rows = read_jsonl(finished.metrics)
    assert [(row["num_generated"], row["num_variations"]) for row in rows] == [(8, 0), (15, 7)]
    assert {name: value["generated"] for name, value in rows[1]["balance"]["task"]["values"].items()} == {
        "txt2img": 8,
        "img2img": 3,
        "inpaint": 4,
    }
    first = {sample.name: sample for sample in read_samples(finished.round(0).samples)}
    held_out = {sample.prompt.text for sample in first.values() if sample.split == "val"}
    assert held_out
    for sample in varied(finished):
        origin = sample.provenance["parent"]
        parent = first[origin["name"]]
        assert parent.split == "train" and parent.prompt.text not in held_out
        assert (origin["split"], origin["prompt"], origin["seed"]) == ("train", parent.prompt.text, parent.seed)
        assert sample.split == ("train" if sample.kept else "")
    assert any(sample.kept for sample in varied(finished))


def test_an_image_drawn_over_shows_what_its_parent_showed(finished: RunFolder) -> None:
    first = {sample.name: sample.prompt for sample in read_samples(finished.round(0).samples)}
    for sample in varied(finished)[:3]:
        parent = first[sample.provenance["parent"]["name"]]
        assert (sample.task, sample.provenance["strength"], sample.prompt.objects) == ("img2img", 0.5, parent.objects)
        assert sample.prompt.text == parent.text.replace(parent.attributes["time"], "in the rain")


def test_where_an_object_is_repainted_all_else_stays_with_its_labels(finished: RunFolder) -> None:
    first = {sample.name: sample for sample in read_samples(finished.round(0).samples)}
    repainted = varied(finished)[3:]
    for sample in repainted:
        origin = sample.provenance["parent"]
        parent = first[origin["name"]]
        region = repaint_region(parent.instances, origin["object"], sample.provenance["margin_fraction"])
        assert (sample.pixels()[~region] == parent.pixels()[~region]).all()
        (phrase,) = sample.prompt.objects
        assert (
            phrase.text == {"piano": "grand piano", "car": "car"}[origin["class"]]
            and phrase.class_name == origin["class"]
        )
        seen = sample.labels("attention")
        before = parent.instances.subset(np.arange(2) != origin["object"])
        new = seen.masks[seen.class_ids == CLASSES.index(origin["class"])].any(axis=0)
        assert (seen.masks[seen.class_ids == before.class_ids[0]].any(axis=0) == before.masks[0] & ~new).all()
        assert not (new & ~region).any()
        # Kept where it shows both: the one that was painted and the one that was there.
        assert sample.kept == (sorted(seen.class_ids) == [0, 1])
    assert any(sample.kept for sample in repainted)


def test_the_dataset_tells_where_a_variation_comes_from(finished: RunFolder) -> None:
    provenance = {
        Path(entry["file_name"]).stem: entry["provenance"]
        for entry in read_json(finished.round(1).dataset / "coco" / "train.json")["images"]
    }
    kept = [sample for sample in varied(finished) if sample.kept]
    assert kept
    for sample in kept:
        assert provenance[sample.name]["task"] == sample.task
        assert provenance[sample.name]["parent"]["name"] in provenance
    frozen = [(folder.dataset / "coco" / "val.json").read_bytes() for folder in finished.complete_rounds()]
    assert frozen[0] == frozen[1]


def cut_off(config: LoopConfig, pipe: Any, run: RunFolder, patch: pytest.MonkeyPatch, num_batches: int) -> None:
    """Begin a run that is stopped after so many batches of round 1."""
    num_done, draw = 0, generate.generate_with_attention

    def stop(*arguments: Any, **options: Any) -> Any:
        nonlocal num_done
        num_done += run.round(0).complete
        if num_done > num_batches:
            raise KeyboardInterrupt
        return draw(*arguments, **options)

    with patch.context() as patched:
        patched.setattr(generate, "generate_with_attention", stop)
        with pytest.raises(KeyboardInterrupt):
            list(run_rounds(config, pipe, run))


@pytest.mark.parametrize("num_batches", [5, 7])
def test_a_run_that_was_cut_off_makes_the_same_variations(
    pipe: Any,
    config: LoopConfig,
    finished: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_batches: int,
) -> None:
    run = RunFolder(tmp_path / "run")
    cut_off(config, pipe, run, monkeypatch, num_batches)
    list(run_rounds(config, pipe, run))
    for name in ("samples.jsonl", "dataset/coco/train.json"):
        assert (run.round(1).path / name).read_bytes() == (finished.round(1).path / name).read_bytes()
    assert len(varied(run)) == 7
    for one, other in zip(read_samples(run.round(1).samples), read_samples(finished.round(1).samples), strict=True):
        assert one.image_path.read_bytes() == other.image_path.read_bytes()


def test_variations_start_from_the_corrections_that_their_round_began_with(
    pipe: Any, config: LoopConfig, finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person says that all images of round 0 show a piano alone; and, while round 1 is cut off, a car alone."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished.round(0).path, run.round(0).path)

    def correct(class_id: int) -> None:
        mask = np.zeros((1, 64, 96), bool)
        mask[0, 8:40, 16:64] = True
        names = [sample.name for sample in read_samples(run.round(0).samples)]
        write_json(run.corrections, dict.fromkeys(names, Instances.from_masks(mask, [class_id]).to_json()))

    correct(0)
    cut_off(config, pipe, run, monkeypatch, 7)
    correct(1)
    list(run_rounds(config, pipe, run))
    assert [sample.provenance["parent"]["class"] for sample in varied(run)[3:]] == ["piano"] * 4
    trained = read_json(run.round(1).dataset / "coco" / "train.json")
    firsts = {entry["id"] for entry in trained["images"] if entry["file_name"].startswith("r00")}
    names = {entry["id"]: entry["name"] for entry in trained["categories"]}
    labels = [entry for entry in trained["annotations"] if entry["image_id"] in firsts]
    assert labels and {names[entry["category_id"]] for entry in labels} == {"car"}


def test_images_are_varied_by_their_current_labels(config: LoopConfig, tmp_path: Path, make_samples: Callable) -> None:
    run = RunFolder(tmp_path / "run")
    own = make_samples(run.round(0).path, [[0]] * 4, rejected={1: "low_score:piano"})
    write_samples(run.round(0).samples, own)
    for index in (1, 2):
        write_samples(run.round(index).samples, [])

    def judge(index: int, *judged: Sample) -> None:
        write_jsonl(run.round(index).relabelled(0), (sample.to_json() for sample in judged))

    def kept(number: int, class_id: int) -> Sample:
        encoded = make_instances([class_id]).to_json()
        return replace(own[number], labeler="consensus", reason="", split="train", encoded=encoded)

    def rejected(number: int) -> Sample:
        return replace(own[number], reason="too_few:piano", split="")

    judge(1, rejected(0), rejected(1), kept(2, 0), kept(3, 0))
    judge(2, kept(0, 1), kept(1, 1), rejected(2), rejected(3))
    judge(3, *map(rejected, range(4)))  # a round that is not complete: its word may yet change
    for index in range(3):
        write_json(run.round(index).metrics, {"promoted": True})
    write_json(run.corrections, {own[3].name: make_instances([0, 1]).to_json()})
    samples = samples_to_vary(run, run.round(3))
    assert [(sample.split, sample.class_ids) for sample in samples] == [
        ("train", [1]), ("train", [1]), ("", [0]), ("train", [0, 1]),
    ]  # fmt: skip
    planned = plan_round_variations(config, samples, 3)
    assert {variation.source.name for variation in planned} == {own[number].name for number in (0, 1, 3)}
    write_json(run.corrections, {sample.name: make_instances([]).to_json() for sample in own})
    assert samples_to_vary(run, run.round(3)) == samples
    assert all(not sample.class_ids for sample in samples_to_vary(run, run.round(4)))


def test_only_training_images_from_noise_are_varied(
    config: LoopConfig, tmp_path: Path, make_samples: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_samples(tmp_path, [[0, 1]] * 5, rejected={0: "too_few:piano"})
    photo, validation, twin, inpainted = made[1:]
    earlier = [
        made[0],
        replace(photo, task="photo"),
        replace(validation, split="val"),
        replace(twin, prompt=validation.prompt),
        replace(inpainted, task="inpaint"),
    ]
    with caplog.at_level(logging.WARNING):
        assert plan_round_variations(config, earlier, 1) == []
    assert "round 1: rounds.variations.1 finds nothing to vary" in caplog.text
    fit = replace(twin, name="fit")
    planned = plan_round_variations(config, [*earlier, fit], 1)
    assert {variation.source.name for variation in planned} == {"fit"} and len(planned) == 7
    assert planned == plan_round_variations(config, [*earlier, fit], 1)
    assert plan_round_variations(config, [fit], 0) == []


def test_prompts_of_variations_are_checked_before_any_work(tmp_path: Path, pipe: Any) -> None:
    check_prompts(loop_config(tmp_path, REDRAWN, REPAINTED), pipe)
    odd = REPAINTED | {"templates": ['("a {object}++ at night", "a road").blend(1, 1)']}
    with pytest.raises(UserError, match="uses more of compel than weights"):
        check_prompts(loop_config(tmp_path, odd), pipe)


def test_what_can_never_be_repainted_is_an_error(tmp_path: Path, pipe: Any) -> None:
    config = loop_config(tmp_path, REPAINTED | {"only": ["car"]})
    pianos = validate({"templates": ["a {rare}"], "objects": {"rare": {"piano": "piano"}}}, PromptsConfig)
    with pytest.raises(UserError, match=r"'rounds.variations.0': no object .* may be repainted"):
        check_prompts(config.model_copy(update={"prompts": pianos}), pipe)
