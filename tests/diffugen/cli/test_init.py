"""`diffugen init`: the configs that it writes run, and what it cannot use is refused in a sentence."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_sentence import error_of

from diffugen.cli.main import build_parser, main
from diffugen.config.dataset import DatasetConfig
from diffugen.config.jobs import load_jobs
from diffugen.config.loader import load_config, read_config
from diffugen.config.schema import schema_of_kind
from diffugen.generation.generate_dataset import make_plan
from diffugen.images import write_png
from textual_inversion.config import ConceptRunConfig
from train_loop import load_run_config

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    """Six pictures of a grand piano, in a folder of that name."""
    shutil.copytree(ROOT / "configs" / "demo" / "grand_piano", here / "photos" / "grand_piano")
    return Path("photos/grand_piano")


def init(*arguments: str | Path) -> int:
    return main(["init", *map(str, arguments)])


def next_command(capsys: pytest.CaptureFixture[str]) -> Any:
    """The arguments of the printed next command, as the real parser reads them."""
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next:"))
    program, *words = shlex.split(line.removeprefix("next:"))
    assert program == "diffugen"
    parsed = build_parser().parse_args(words)
    parsed.words = words
    return parsed


def test_a_loop_needs_photos_and_a_model_only(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(photos, "--model", "toy") == 0
    command = next_command(capsys)
    assert command.words == ["loop", "grand-piano.json"]
    config = load_run_config(command.config)
    assert config.name == "grand-piano" and config.rare_classes == ("grand-piano",) and len(config.classes) == 3
    (concept,) = config.concept
    assert concept.photos == photos.resolve() and concept.placeholder_token == "<grand-piano>"
    assert config.pool is not None and config.pool.folder == photos.resolve()
    assert not Path(json.loads(Path("grand-piano.json").read_text())["concept"]["photos"]).is_absolute()


def test_the_chosen_start_word_is_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(photos, "--model", "toy", "--name", "chosen")
    assert "the loop will choose one" in capsys.readouterr().out
    init(photos, "--model", "toy", "--name", "given", "--word", "boat")
    assert "starts from" not in capsys.readouterr().out


def test_words_that_the_model_does_not_have_are_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(photos, "--model", "toy", "--class", "grand-piano,elephant,car")
    assert "note: the model has no word 'elephant'; it may draw something else" in capsys.readouterr().out
    init(photos, "--model", "toy", "--name", "known", "--word", "bench", "--class", "grand-piano,car")
    assert "note:" not in capsys.readouterr().out


def test_neither_the_object_nor_a_class_is_shown_as_another_thing(photos: Path) -> None:
    init(photos, "--model", "toy", "--class", "Rescue_Boat,Cars,tent")
    prompts = json.loads(Path("Rescue_Boat.json").read_text())["prompts"]
    others = prompts["attributes"]["other"]
    assert len(others) == len(set(others)) == 8 and not {"boat", "car", "tent"} & set(others)
    assert any("{other}" in text for text in prompts["templates"])
    init(photos, "--model", "toy", "--class", "grand-piano", "--word", "cactus")
    assert "cactus" in json.loads(Path("grand-piano.json").read_text())["prompts"]["attributes"]["other"]
    init(photos, "--model", "toy", "--class", "cars")
    assert "car" not in json.loads(Path("cars.json").read_text())["classes"]


def test_a_models_own_suggestions_are_followed(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that were written before there were other things."""
    model = photos.parents[1] / "model"
    shutil.copytree(ROOT / "diffugen/toyworld/weights/pipeline", model, symlinks=True)
    suggested = {
        "concept": {"initializer_word": "bench", "steps": 7},
        "prompts": {"templates": {"a {rare}": 1}, "negative": "blurry"},
    }
    (model / "suggested.json").write_text(json.dumps(suggested))
    weights = ROOT / "diffugen/toyworld/weights/detector.safetensors"
    assert init(photos, "--model", model, "--weights", weights, "--class", "grand-piano") == 0
    config = load_run_config(next_command(capsys).config)
    assert config.prompts is not None and config.prompts.negative == "blurry"
    assert config.prompts.texts == ["a {rare}", "a photo of a {common}", "a photo of a {other}"]
    assert config.concept[0].initializer_word == "bench" and config.concept[0].steps == 7


def test_comments_say_what_was_found(photos: Path) -> None:
    init(photos, "--model", "toy", "--class", "grand-piano,car", "--name", "mine")
    values = json.loads(Path("mine.json").read_text())
    assert values["// concept"].startswith("6 photos (png, 128x128) teach the model")
    assert "128x128" in values["// model"] and "The weights know: car, " in values["// classes"]
    assert values["classes"] == ["grand-piano", "car"]


def test_editors_find_the_schema(photos: Path) -> None:
    init(photos, "--model", "toy", "--out", "configs/piano.json")
    schema = Path("configs") / json.loads(Path("configs/piano.json").read_text())["$schema"]
    assert json.loads(schema.read_text()) == schema_of_kind("loop")
    assert load_run_config(Path("configs/piano.json")).concept[0].photos == photos.resolve()


def test_a_config_may_be_commented_further(photos: Path) -> None:
    init(photos, "--model", "toy")
    path = Path("grand-piano.json")
    plain = load_run_config(path)
    text = path.read_text().replace('"rounds":', '// how long\n  /* "seed": 3, */ "rounds":')
    path.write_text(text)
    assert load_run_config(path) == plain


def test_a_concept_and_a_dataset(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(photos, "--kind", "concept", "--model", "toy", "--word", "bench", "--name", "word") == 0
    command = next_command(capsys)
    assert command.words == ["learn", "word.json"]
    assert load_config(command.config, ConceptRunConfig).concept[0].initializer_word == "bench"

    assert init("--kind", "dataset", "--class", "car,tent", "--model", "toy", "--out", "of cars.json") == 0
    command = next_command(capsys)
    assert command.words == ["generate", "of cars.json"]
    (job,) = load_jobs(command.config)
    assert isinstance(job.config, DatasetConfig) and job.config.class_names == ("car", "tent")
    plan = make_plan(job.config, job.out)
    assert len(plan.samples) == 24 and {phrase.class_name for item in plan.prompts for phrase in item.objects} == {
        "car",
        "tent",
    }


def test_a_model_elsewhere_needs_weights(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give the detector to start from with --weights" in error_of(capsys, init(photos, "--model", "some/model"))
    toy = ROOT / "diffugen" / "toyworld" / "weights" / "detector.safetensors"
    assert init(photos, "--model", "some/model", "--weights", toy) == 0
    said = capsys.readouterr().out
    assert "some/model is not on this machine" in said
    assert read_config(Path("grand-piano.json"))["model"]["path"] == "some/model"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give the folder of photos of the object: diffugen init PHOTOS ..."),
        (["photos/none", "--model", "toy"], "PHOTOS photos/none does not exist; give a folder of images"),
        (["photos/grand_piano/grand-piano_0.png", "--model", "toy"], "is not a folder"),
        (["photos/grand_piano"], "give the diffusion model with --model"),
        (["photos/grand_piano", "--model", "./none"], "--model ./none does not exist"),
        (["photos/grand_piano", "--model", "photos"], "photos has no model_index.json"),
        (["photos/grand_piano", "--model", "toy", "--weights", "none.pt"], "none.pt"),
        (["photos/grand_piano", "--model", "toy", "--name", "a/b"], "setting 'name' is \"a/b\", but must be"),
        (["photos/grand_piano", "--model", "toy", "--class", "a,a"], "setting 'classes' lists 'a' twice"),
        (["photos/grand_piano", "--model", "toy", "--word", "xyzzyq"], "--word: 'xyzzyq' is not a word of the model"),
        (["--kind", "dataset", "--model", "toy"], "give the classes of the dataset with --class"),
        (
            ["photos/grand_piano", "--kind", "concept", "--model", "toy"],
            "give a word for something similar with --word",
        ),
        (["--example", "nothing", "out"], "--example 'nothing' is none of the examples: demo"),
        (
            ["--example", "plain-word", "photos/grand_piano/grand-piano_0.png"],
            "grand-piano_0.png is a file; give a folder",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert sentence in error_of(capsys, init(*arguments))
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [("broken.png", b"\x89PNG\r\n\x1a\n no picture", "photo"), ("only.txt", b"a {}", "PHOTOS")],
)
def test_photos_with_problems_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, sentence: str
) -> None:
    (here / "duck").mkdir()
    (here / "duck" / name).write_bytes(content)
    said = error_of(capsys, init("duck", "--model", "toy"))
    assert said.startswith(sentence) and "duck" in said
    assert not Path("duck.json").exists()


def test_few_photos_are_noted_and_captions_are_no_surprise(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(here / "duck" / "a.png", np.zeros((40, 60, 3), np.uint8))
    (here / "duck" / "a.txt").write_text("a {} on a road")
    assert init("duck", "--model", "toy") == 0
    printed = capsys.readouterr()
    assert "few photos (1)" in printed.out and "a.txt" not in printed.err
    assert "1 photo (png, 60x40)" in Path("duck.json").read_text()


def test_a_config_that_is_there_stays(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("grand-piano.json").write_text("mine")
    said = error_of(capsys, init(photos, "--model", "toy"))
    assert "grand-piano.json exists; remove it, or give another file with --out" in said
    assert Path("grand-piano.json").read_text() == "mine"
    assert init("--example", "plain-word", "here") == 0
    assert "here/plain-word.json exists" in error_of(capsys, init("--example", "plain-word", "here"))


def test_an_example_brings_what_it_needs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init("--example", "generate", "examples") == 0
    command = next_command(capsys)
    assert command.words == ["generate", "examples/generate.json"]
    (job,) = load_jobs(command.config)
    assert Path(job.config.model.path).is_dir()
    assert (here / "examples" / json.loads(Path("examples/generate.json").read_text())["$schema"]).is_file()


def test_a_schema_of_the_users_own_is_not_replaced(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d").mkdir()
    Path("d/loop.schema.json").write_text("mine")
    said = error_of(capsys, init(photos, "--model", "toy", "--out", "d/x.json"))
    assert "d/loop.schema.json is there and not what this command writes" in said
    assert Path("d/loop.schema.json").read_text() == "mine" and not Path("d/x.json").exists()
    Path("y.json").symlink_to("nowhere")
    assert "symbolic link" in error_of(capsys, init(photos, "--model", "toy", "--out", "y.json"))


@pytest.mark.parametrize("there", ["schemas/loop.json", "demo", "photos/mine.png"])
def test_an_example_is_written_into_no_folder_of_the_users(
    photos: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    path = Path("d") / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    said = error_of(capsys, init("--example", "plain-word", "d"))
    assert "has files that diffugen did not write" in said
    assert path.read_text() == "mine" and not Path("d/plain-word.json").exists()


def test_no_config_is_written_among_the_photos(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(photos.iterdir())
    for out in (photos / "x.json", photos / "new" / "x.json"):
        said = error_of(capsys, init(photos, "--model", "toy", "--out", str(out)))
        assert "lies in the input" in said and "give a place apart from it, such as" in said
    assert sorted(photos.iterdir()) == before
