"""`diffugen generate` by img2img and inpainting, end to end on a tiny random pipeline."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffugen.cli.main import main
from diffugen.config.dataset import DatasetConfig
from diffugen.config.loader import load_config
from diffugen.datasets.folder import class_names_of, read_dataset, write_dataset
from diffugen.files import read_json, read_jsonl
from diffugen.generation import batches as generate_module
from diffugen.generation.generate_dataset import make_plan
from diffugen.generation.inpainting import repaint_region
from diffugen.generation.labelled import missing_objects
from diffugen.generation.sources import read_sources
from diffugen.images import read_image, write_png
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.prompts.prompt import ObjectPhrase, Prompt, fill_template
from diffugen.sample import Sample

SIZES_HW = {"one": (64, 96), "two": (64, 96), "three": (80, 70)}
PROMPT = fill_template(
    "a {x} and a {x} {time}", (ObjectPhrase("red car", "car"), ObjectPhrase("tent", "tent")), {"time": "by day"}
)


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(len(name)).integers(0, 256, (*SIZES_HW[name], 3), dtype=np.uint8)


def labels(name: str) -> Instances:
    """A car on the left and a tent on the right."""
    masks = np.zeros((2, *SIZES_HW[name]), bool)
    masks[0, 10:40, 4:30] = True
    masks[1, 20:60, 34:60] = True
    return Instances.from_masks(masks, [0, 1], [0.9, 0.8])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled dataset of two sizes, all splits, and prompts; read only."""
    folder = tmp_path_factory.mktemp("source")
    splits = {"one": "train", "two": "val", "three": "train"}
    items = [
        Sample.labelled(name, picture(name), labels(name), split, PROMPT.to_provenance() | {"seed": 5})
        for name, split in splits.items()
    ]
    write_dataset(folder / "dataset", items, ["car", "tent"])
    return folder


def write_config(path: Path, model: Path, **values: Any) -> Path:
    settings = {
        "model": {"path": str(model), "device": "cpu"},
        "generate": {"height": 64, "width": 96, "num_inference_steps": 2, "batch_size": 2},
        "label": {"method": "paper", "min_area_fraction": 0.0},
        **values,
    }
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture
def inpaint_config(tmp_path: Path, source: Path, tiny_pipeline_dir: Path) -> Path:
    return write_config(
        tmp_path / "inpaint.json",
        tiny_pipeline_dir,
        task={"kind": "inpaint", "source": str(source), "margin_fraction": 0.03},
        prompts={
            "templates": [{"text": "a {new} {source_time}"}],
            "objects": {"new": {"piano": ["grand piano"], "tent": ["tent"]}},
        },
    )


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_inpainting_leaves_all_else_as_it_was(inpaint_config: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["generate", str(inpaint_config), "--out", str(out)]) == 0
    samples = read_jsonl(out / "samples.jsonl")
    assert [(s["provenance"]["parent"]["name"], s["provenance"]["parent"]["object"]) for s in samples] == [
        (name, number) for name in ("one", "three", "two") for number in (0, 1)
    ]
    assert class_names_of(out / "dataset") == ["car", "tent", "piano"]
    for sample in samples:
        name, target = (sample["provenance"]["parent"][key] for key in ("name", "object"))
        height, width = (side // 8 * 8 for side in SIZES_HW[name])
        before, image = picture(name)[:height, :width], read_image(out / sample["image"])
        old = Instances.from_masks(labels(name).masks[:, :height, :width], [0, 1], [0.9, 0.8])
        region = repaint_region(old, target, 0.03)
        assert image.shape == before.shape
        assert (image[~region] == before[~region]).all()
        assert (image[region] != before[region]).any()
        assert (sample["task"], sample["prompt"]["text"]) == (
            "inpaint",
            f"a {sample['prompt']['objects'][0]['text']} by day",
        )
        found = Instances.from_json(sample["instances"])
        assert found.class_ids[0] == 1 - target  # the untouched one
        assert (found.masks[0] == old.masks[1 - target]).all()
        assert sample["kept"] == (len(found) == 2)
        if sample["kept"]:
            new = sample["prompt"]["objects"][0]["class_name"]
            assert ["car", "tent", "piano"][found.class_ids[1]] == new
            assert not (found.masks[1] & ~region).any()
    assert any(sample["kept"] for sample in samples)
    parents = {sample["name"]: sample["provenance"]["parent"] for sample in samples}
    for split in ("train", "val"):  # a variation stays on its parent's side
        names = [name for name, _, _ in read_dataset(out / "dataset", split)]
        assert names and all(parents[name]["split"] == split for name in names)


def test_a_killed_inpainting_ends_the_same(inpaint_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["generate", str(inpaint_config), "--out", str(out)])
    whole = contents(out)
    (out / "parts" / "batch_000002.jsonl").unlink()
    (out / "images" / "000003.png").unlink()
    assert main(["generate", str(inpaint_config), "--out", str(out)]) == 0
    assert contents(out) == whole


def test_img2img_of_a_dataset_changes_its_attributes(source: Path, tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "night.json",
        tiny_pipeline_dir,
        task={"kind": "img2img", "source": str(source), "strength": 0.5},
        prompts={
            "templates": [{"text": "{source} {time} {weather}"}],
            "attributes": {"time": ["at night"], "weather": ["in the rain"]},
        },
    )
    out = tmp_path / "out"
    assert main(["generate", str(config), "--out", str(out), "--set", "num_images=5"]) == 0
    samples = read_jsonl(out / "samples.jsonl")
    assert len(samples) == 5
    assert {sample["prompt"]["text"] for sample in samples} == {"a red car and a tent at night in the rain"}
    assert all(read_image(out / sample["image"]).shape == (64, 96, 3) for sample in samples)
    assert samples[0]["task"] == "img2img"
    parent = {"name": "one", "split": "train", "prompt": PROMPT.text, "seed": 5}
    assert samples[0]["provenance"]["parent"] == parent
    assert samples[0]["provenance"]["strength"] == 0.5
    assert len({sample["seed"] for sample in samples}) == 5
    provenance = read_json(out / "config.json")["task"]
    assert provenance["kind"] == "img2img"


def test_a_low_strength_stays_close_to_the_source(source: Path, tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    def distance(strength: float) -> float:
        config = write_config(
            tmp_path / f"{strength}.json",
            tiny_pipeline_dir,
            task={"kind": "img2img", "source": str(source), "strength": strength},
            prompts={"templates": [{"text": "an empty road"}]},
            generate={"height": 64, "width": 96, "num_inference_steps": 10, "guidance_scale": 1.0},
            num_images=1,
            seed=3,
        )
        plan = make_plan(load_config(config, DatasetConfig), tmp_path)
        out = tmp_path / str(strength)
        assert main(["generate", str(config), "--out", str(out)]) == 0
        image = read_image(out / "images" / "000000.png").astype(float)
        return float(np.abs(image - plan.variations["000000"].load()[0]).mean())

    assert distance(0.1) < distance(1.0)


def test_img2img_of_photos_keeps_variations_of_a_photo_together(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    for number in range(5):
        write_png(tmp_path / "photos" / f"{number}.png", picture("three"))
    config = write_config(
        tmp_path / "photos.json",
        tiny_pipeline_dir,
        task={"kind": "img2img", "source": "photos"},
        prompts={
            "templates": [{"text": "a {x} {time}"}],
            "objects": {"x": {"tent": ["tent"]}},
            "attributes": {"time": ["at night", "by day"]},
            "mode": "cartesian",
        },
    )
    plan = make_plan(load_config(config, DatasetConfig, ["num_images_per_prompt=2"]), tmp_path)
    assert len(plan.prompts) == 20
    assert plan.class_names == ("tent",)
    splits = {(plan.variations[sample.name].source.name, sample.split) for sample in plan.samples}
    assert sorted(split for _, split in splits) == ["train"] * 4 + ["val"]


def test_what_was_generated_can_be_a_source(inpaint_config: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["generate", str(inpaint_config), "--out", str(out)])
    images, _ = read_sources(out)
    assert images
    for image in images:
        assert image.prompt.text.endswith("by day")
        assert image.provenance["parent"]["seed"] == 5
        assert image.provenance["labeler"] == "attention"


def test_nothing_to_repaint_is_reported(
    inpaint_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["generate", str(inpaint_config), "--out", str(out), "--set", 'task.only=["piano"]']) == 2
    assert "no labelled object of the source may be repainted; see task.only" in capsys.readouterr().err
    assert not out.exists()


def test_a_dry_run_of_variations_names_their_parents(
    inpaint_config: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["generate", str(inpaint_config), "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"from {source / 'dataset' / 'images' / 'val' / 'two.png'}, object 1" in printed
    assert "6 images of the sources' sizes" in printed
    assert "time: about" in printed
    assert not out.exists()


def test_images_are_labelled_while_the_next_are_generated(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch waits for the first one's labels: were they made afterwards, it would wait in vain."""
    labelled, batches = threading.Event(), iter(range(9))
    generate, label = generate_module.generate_with_attention, AttentionLabeler.label

    def generate_after_labels(*args: Any, **options: Any) -> Any:
        assert next(batches) == 0 or labelled.wait(timeout=120)
        return generate(*args, **options)

    def note(self: AttentionLabeler, inputs: Any) -> list[Instances]:
        labelled.set()
        return label(self, inputs)

    monkeypatch.setattr(generate_module, "generate_with_attention", generate_after_labels)
    monkeypatch.setattr(AttentionLabeler, "label", note)
    prompts = {"templates": [{"text": "a photo of a {thing}"}], "objects": {"thing": {"car": ["red car", "car"]}}}
    config = write_config(tmp_path / "config.json", tiny_pipeline_dir, prompts=prompts, classes=["car"], num_images=4)
    out = tmp_path / "out"
    assert main(["generate", str(config), "--out", str(out)]) in (0, 2)  # a random model may show no car at all
    assert next(batches) == 2 and len(read_jsonl(out / "samples.jsonl")) == 4


def test_images_of_one_colour_are_not_kept(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of prompts without objects anything else would be kept."""
    generate = generate_module.generate_with_attention
    blank = {1, 2}

    def generate_some_blank(pipe: Any, prompts: Any, seeds: Any, *args: Any, **options: Any) -> Any:
        images = generate(pipe, prompts, seeds, *args, **options)
        return [(image * (index not in blank), heat) for index, (image, heat) in enumerate(images)]

    monkeypatch.setattr(generate_module, "generate_with_attention", generate_some_blank)
    prompts = {"templates": [{"text": "a road"}]}
    config = write_config(tmp_path / "config.json", tiny_pipeline_dir, prompts=prompts, classes=["car"], num_images=3,
                          generate={"height": 64, "width": 64, "num_inference_steps": 1, "batch_size": 3})  # fmt: skip
    assert main(["generate", str(config), "--out", str(tmp_path / "out")]) == 0
    assert [line["reason"] for line in read_jsonl(tmp_path / "out" / "samples.jsonl")] == ["", "blank", "blank"]
    blank.add(0)
    assert main(["generate", str(config), "--out", str(tmp_path / "black")]) == 2
    assert "each of the 3 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "found", "expected"),
    [
        ([], [], ""),
        ([], [1], ""),
        (["car"], [0], ""),
        (["car"], [], "no car"),
        (["car", "tent"], [0, 0], "no tent"),
        (["car", "car"], [0], "too few of car"),
        (["tent", "car"], [], "no tent, no car"),
    ],
)
def test_missing_objects(asked: list[str], found: list[int], expected: str) -> None:
    prompt = Prompt(text="", objects=tuple(ObjectPhrase(name, name) for name in asked))
    instances = Instances.from_masks(np.ones((len(found), 8, 8), bool), found)
    assert missing_objects(prompt, instances, ["car", "tent"]) == expected
