"""Configs of the first DiffuGen: they load as they are, and run with other models by --set."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen.cli.main import main
from diffugen.config.dataset import Img2ImgConfig, InpaintConfig
from diffugen.config.jobs import load_jobs
from diffugen.datasets.folder import class_names_of, write_dataset
from diffugen.detector.model import new_detector, save_detector
from diffugen.errors import UserError
from diffugen.files import read_jsonl
from diffugen.generation.generate_dataset import make_plan
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, fill_template
from diffugen.sample import Sample

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "configs" / "upstream-piano-road.json"

SHAPED_LIKE_THEIRS: dict[str, Any] = {
    "dataset_name": "harbour",
    "dataset_root": "datasets_output",
    "image_format": "png",
    "image_size": {"width": 96, "height": 64},
    "steps": 2,
    "dataset_classes": ["boat", "tent"],
    "dataset_to_model_class_map": {"boat": "boat", "tent": "boat"},
    "label_model": {"type": "YOLOSeg", "weights": "models/seg/gone.pt", "classes": "models/seg/classes.txt"},
    "unsupervised": True,
    "deterministic": True,
    "images_per_shard": 500,
    "txt2img": {
        "stable_diffusion_model": "somebody/some_model",
        "seed_range": {"min": 100, "max": 900},
        "seed_count_per_prompt": 2,
        "object_names": ["tent", "red car"],
        "view_points": ["front", "rear"],
        "times_of_day": ["day"],
        "sky_conditions": ["clear", "cloudy"],
        "weather_conditions": ["sunny"],
        "prompts": ["a {view_point} view of a {object_name}, it is {weather_condition} {time_of_day}"],
        "negative_prompt": "night",
    },
    "img2img": {
        "stable_diffusion_model": "somebody/some_model",
        "source_dataset": "datasets_output/harbour/txt2img",
        "times_of_day": ["night"],
        "sky_conditions": ["cloudy"],
        "weather_conditions": ["rain", "fog"],
    },
    "inpaint": {
        "stable_diffusion_model": "somebody/other_model",
        "source_dataset": "datasets_output/harbour/txt2img",
        "red car": ["blue car", "tree"],
        "tent": ["grand piano"],
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory: paths in upstream configs are relative to it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, *tasks: str, **changes: Any) -> Path:
    """The config above with these of its tasks; changes are by `task__key` or by key."""
    values = copy.deepcopy(SHAPED_LIKE_THEIRS)
    for task in {"txt2img", "img2img", "inpaint"} - set(tasks):
        del values[task]
    for name, value in changes.items():
        *group, key = name.split("__")
        (values[group[0]] if group else values)[key] = value
    path = folder / "configs" / "harbour.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
    return path


def test_txt2img_is_translated(here: Path) -> None:
    [job] = load_jobs(write(here, "txt2img"))
    config = job.config
    assert job.out == Path("datasets_output/harbour/txt2img")
    assert config.model.path == "somebody/some_model"
    assert config.classes == ("boat", "tent", "red car")  # what is drawn but not listed is added
    assert (config.generate.size_hw, config.generate.num_inference_steps) == ((64, 96), 2)
    plan = make_plan(config, job.out)
    assert len(plan.prompts) == 2 * 2 * 2  # the skies are in no prompt
    first = plan.prompts[0]
    assert first.text == "a front view of a tent, it is sunny day"
    assert (first.objects, first.negative_text) == ((ObjectPhrase("tent", "tent"),), "night")
    assert len({sample.seed for sample in plan.samples}) == 8
    assert all(100 <= (sample.seed or 0) <= 900 for sample in plan.samples)


@pytest.mark.parametrize("count", [1, 4, 11])
def test_image_count_is_the_number_of_images(here: Path, count: int) -> None:
    [job] = load_jobs(write(here, "txt2img", txt2img__image_count=count))
    plan = make_plan(job.config, job.out)
    assert len(plan.prompts) == len({sample.seed for sample in plan.samples}) == count
    texts = [prompt.text for prompt in plan.prompts]
    assert max(map(texts.count, texts)) == -(-count // 4)  # further seeds of the same prompts


def test_what_has_no_effect_is_named(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = {"deterministic": False, "image_format": "jpg", "colour": 1}
    load_jobs(write(here, "txt2img", "img2img", txt2img__guidance=3, **changes))
    for name in (
        "'colour' are not known",
        "'image_format' 'jpg'",
        "'deterministic' false",
        "'images_per_shard'",
        "'label_model' and 'dataset_to_model_class_map' have no effect; labels come from attention",
        "'txt2img.guidance' are not known",
        "'txt2img.sky_conditions' has no effect; no prompt has the slot {sky_condition}",
        "'img2img.sky_conditions' has no effect",
    ):
        assert name in caplog.text
    assert "steps" not in caplog.text and "seed_range" not in caplog.text


def test_a_learned_word_is_loaded_from_the_working_directory(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    inversion = {"weights": "models/piano.safetensors", "keyword": "<grand-piano>"}
    names = {"txt2img__textual_inversion": inversion, "txt2img__object_names": ["<grand-piano>"]}
    path = write(here, "txt2img", **names)
    [job] = load_jobs(path)
    assert job.config.model.embeddings == (here / "models" / "piano.safetensors",)
    assert job.config.classes == ("boat", "tent", "grand-piano")
    assert "keyword" not in caplog.text
    load_jobs(write(here, "txt2img", txt2img__textual_inversion=inversion))
    assert "'txt2img.textual_inversion.keyword' '<grand-piano>' has no effect; no prompt has the word" in caplog.text


def test_overrides_go_by_their_names_and_by_ours(here: Path) -> None:
    path = write(here, "txt2img", "img2img")
    options = ["steps=7", "txt2img.image_count=3", "model.path=./mine", "model.dtype=float16", "val_fraction=0"]
    first, second = load_jobs(path, options)
    assert first.config.generate.num_inference_steps == second.config.generate.num_inference_steps == 7
    assert first.config.num_images == 3
    assert {job.config.model.path for job in (first, second)} == {str(here / "mine")}
    assert first.config.model.dtype == "float16"
    [job] = load_jobs(path, ["num_images=5"], task="txt2img")
    assert (job.config.num_images, job.config.num_images_per_prompt) == (5, None)


@pytest.fixture
def txt2img_output(here: Path) -> Path:
    """What txt2img left: two labelled images with their prompts."""
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 10:40, 4:30] = True
    masks[1, 20:60, 40:80] = True
    items = []
    for number, (name, class_name) in enumerate((("tent", "tent"), ("red car", "red car"))):
        template = SHAPED_LIKE_THEIRS["txt2img"]["prompts"][0]
        attributes = {"view_point": "rear", "weather_condition": "sunny", "time_of_day": "day"}
        prompt = fill_template(template, [ObjectPhrase(name, class_name)], attributes)
        instances = Instances.from_masks(masks[number : number + 1].numpy(), [number + 1])
        pixels = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8).numpy()
        items.append(Sample.labelled(str(number), pixels, instances, "train", prompt.to_provenance()))
    out = here / "datasets_output" / "harbour" / "txt2img"
    write_dataset(out / "dataset", items, ["boat", "tent", "red car"])
    return out


def test_img2img_changes_the_slots_of_the_source(here: Path, txt2img_output: Path) -> None:
    [job] = load_jobs(write(here, "txt2img", "img2img"), task="img2img")
    assert isinstance(job.config.task, Img2ImgConfig)
    assert (job.config.task.source, job.out) == (txt2img_output, Path("datasets_output/harbour/img2img"))
    plan = make_plan(job.config, job.out)
    assert [prompt.text for prompt in plan.prompts] == [
        f"a rear view of a {name}, it is {weather} night" for name in ("tent", "red car") for weather in ("rain", "fog")
    ]
    assert plan.class_names == ("boat", "tent", "red car")
    assert plan.prompts[0].negative_text == "night"


def test_inpainting_replaces_objects_by_further_words_for_their_class(here: Path, txt2img_output: Path) -> None:
    [job] = load_jobs(write(here, "txt2img", "inpaint"), task="inpaint")
    assert isinstance(job.config.task, InpaintConfig)
    assert job.config.model.path == "somebody/other_model"
    drawn = [(prompt.text, prompt.objects[0].class_name) for prompt in make_plan(job.config, job.out).prompts]
    assert drawn == [
        ("a rear view of grand piano", "tent"),
        ("a rear view of blue car", "red car"),
        ("a rear view of tree", "red car"),
    ]


def test_outputs_of_one_file_go_next_to_each_other(here: Path) -> None:
    jobs = load_jobs(write(here, "txt2img", "img2img"), out=Path("mine"))
    assert [job.out for job in jobs] == [Path("mine/txt2img"), Path("mine/img2img")]
    assert isinstance(jobs[1].config.task, Img2ImgConfig)
    assert jobs[1].config.task.source == here / "mine" / "txt2img"


@pytest.mark.parametrize(
    ("tasks", "changes", "options", "message"),
    [
        ((), {}, {}, "none of the groups txt2img, img2img and inpaint; add one"),
        (("txt2img",), {}, {"task": "inpaint"}, "--task inpaint: .* has no group 'inpaint', only txt2img"),
        (("txt2img",), {"txt2img__prompts": []}, {}, "'txt2img.prompts' is missing; add a list"),
        (("txt2img",), {"txt2img__object_names": []}, {}, "'txt2img.object_names' is missing"),
        (("txt2img",), {"txt2img__seed_range": {"min": 3}}, {}, "'txt2img.seed_range.max' is missing"),
        (("txt2img",), {"txt2img__seed_range": 3}, {}, "'txt2img.seed_range' is 3, but must be a group of settings"),
        (("txt2img",), {"image_size": 512}, {}, "'image_size' is 512, but must be a group"),
        (
            ("txt2img",),
            {"txt2img__textual_inversion": {}, "steps": 0},
            {},
            "num_inference_steps' is 0, but must be at least 1",
        ),
        (("txt2img",), {"txt2img": 3}, {}, "'txt2img' is 3, but must be a group of settings"),
        (("txt2img",), {"unsupervised": False, "label_model": {"type": "SAM"}}, {}, "'SAM'; give YOLOSeg or Mask2"),
        (("txt2img",), {"unsupervised": False, "label_model": {}}, {}, "'label_model.weights' is missing"),
        (("txt2img",), {"txt2img__prompts": 5}, {}, "'txt2img.prompts' is 5, but must be a list"),
        (("txt2img",), {"txt2img__object_names": ["car", 5]}, {}, "'txt2img.object_names.1' is 5, but must be a text"),
        (("txt2img",), {"txt2img__view_points": "front"}, {}, "'txt2img.view_points' is \"front\", but must be a list"),
        (("txt2img",), {"dataset_root": 3, "txt2img__negative_prompt": []}, {}, "2 mistakes"),
        (("inpaint",), {"inpaint__car": [3]}, {}, "'inpaint.car' must be a list of words"),
        (("inpaint",), {"inpaint": {"stable_diffusion_model": "m/m"}}, {}, "'inpaint' names no object to replace"),
        (
            ("img2img",),
            {"img2img": {"times_of_day": ["night"]}},
            {},
            "stable_diffusion_model' is missing; .*--set",
        ),
    ],
)
def test_mistakes_are_named(here: Path, tasks: Any, changes: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_jobs(write(here, *tasks, **changes), **options)


def test_missing_files_name_the_setting_and_the_override(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inversion = {"weights": "models/gone.pt", "keyword": "<piano>"}
    path = write(here, "txt2img", txt2img__textual_inversion=inversion)
    assert main(["generate", str(path)]) == 2
    assert "'model.embeddings': " in (error := capsys.readouterr().err) and "--set 'model.embeddings=" in error
    assert main(["generate", str(write(here, "txt2img"))]) == 2
    assert "model.path 'somebody/some_model' cannot be loaded" in (error := capsys.readouterr().err)
    assert "--set model.path=" in error
    assert main(["generate", str(write(here, "img2img"))]) == 2
    assert "'task.source': " in (error := capsys.readouterr().err) and "--set task.source=" in error


def test_a_dry_run_of_all_tasks_says_what_has_to_be_there_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(write(here, "txt2img", "img2img")), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "8 images of 96x64 pixels" in printed
    assert "unknown, as model.path 'somebody/some_model' is not on this machine" in printed
    assert "img2img: starts from" in printed


def test_a_config_of_theirs_runs_to_its_end(here: Path, tiny_pipeline_dir: Path) -> None:
    path = write(here, "txt2img", "img2img", "inpaint", txt2img__image_count=3)
    options = [f"model.path={tiny_pipeline_dir}", "label.method=paper"]
    options += ["label.min_area_fraction=0", "model.device=cpu", "generate.guidance_scale=1"]
    arguments = ["generate", str(path), *(word for option in options for word in ("--set", option))]
    assert main(arguments) == 0
    for task in ("txt2img", "img2img", "inpaint"):
        out = here / "datasets_output" / "harbour" / task
        samples = read_jsonl(out / "samples.jsonl")
        assert samples and {sample["task"] for sample in samples} == {task}
        assert class_names_of(out / "dataset") == ["boat", "tent", "red car"]
    assert len(read_jsonl(here / "datasets_output" / "harbour" / "txt2img" / "samples.jsonl")) == 3


def test_supervised_labels_come_from_their_label_model(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their map leads from the dataset's classes to the network's."""
    path = write(here, "txt2img", "img2img", unsupervised=False)
    (here / "models" / "seg").mkdir(parents=True)
    (here / "models" / "seg" / "gone.pt").touch()
    for job in load_jobs(path, ["label_model.score_threshold=0.4"]):
        model = job.config.label_model
        assert model is not None
        assert (model.kind, model.weights, model.score_threshold) == ("yolo", str(here / "models/seg/gone.pt"), 0.4)
        assert model.class_map == {"boat": ("boat",), "tent": ("boat",)}
    assert "label_model" not in caplog.text
    assert load_jobs(write(here, "txt2img"))[0].config.label_model is None


def test_a_supervised_config_of_theirs_runs_to_its_end(
    here: Path, tiny_pipeline_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_detector(new_detector(["bus", "boat"]), here / "seg.safetensors")
    masks = np.zeros((2, 64, 96), bool)
    masks[0, 8:40, 8:48] = masks[1, 30:60, 60:90] = True
    found = Instances.from_masks(masks, [1, 0])
    monkeypatch.setattr("diffugen.labelers.detector.predict", lambda model, images, **_: [found for _ in images])
    changes = {"unsupervised": False, "txt2img__object_names": ["tent"], "txt2img__image_count": 2}
    options = [f"model.path={tiny_pipeline_dir}", "model.device=cpu", "label_model.weights=seg.safetensors"]
    arguments = [word for option in options for word in ("--set", option)]
    assert main(["generate", str(write(here, "txt2img", **changes)), *arguments]) == 0
    out = here / "datasets_output" / "harbour" / "txt2img"
    for sample in read_jsonl(out / "samples.jsonl"):
        assert (sample["kept"], sample["labeler"]) == (True, "detector")
        assert sample["instances"]["class_ids"] == [1]  # the prompt's tent, which the detector calls a boat; no bus


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_the_real_config_loads(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(REAL, here / "theirs.json")
    [job] = load_jobs(here / "theirs.json")
    plan = make_plan(job.config, job.out)
    assert len(plan.prompts) == len({sample.seed for sample in plan.samples}) == 250
    assert {prompt.objects for prompt in plan.prompts} == {(ObjectPhrase("piano", "piano"),)}
    assert plan.class_names[-1] == "piano"
    assert "label_model" in caplog.text


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_the_real_config_runs_with_the_toy_pipeline(here: Path) -> None:
    shutil.copy(REAL, here / "theirs.json")
    toy = Path(__file__).parents[3] / "diffugen" / "toyworld" / "weights" / "pipeline"
    options = [f"model.path={toy}", "model.device=cpu", "steps=2", "image_size.width=128", "image_size.height=64"]
    options += ["txt2img.image_count=2"]
    assert main(["generate", "theirs.json", *(word for option in options for word in ("--set", option))]) == 0
    samples = read_jsonl(here / "datasets_output" / "piano-road-no-txtinv" / "txt2img" / "samples.jsonl")
    assert len(samples) == 2
    assert all(sample["prompt"]["objects"] == [{"text": "piano", "class_name": "piano"}] for sample in samples)
    assert all(9092091 <= sample["seed"] <= 9982091 for sample in samples)
