"""The `diffugen` command: help, `generate` and `schema`; mistakes are one sentence and exit code 2."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from one_sentence import error_of

from diffugen.cli.main import main
from diffugen.datasets.folder import class_names_of, own_splits, read_dataset
from diffugen.files import read_json, read_jsonl, write_files
from diffugen.lock import locked

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config_path(tmp_path: Path, tiny_pipeline_dir: Path) -> Path:
    values = {
        "model": {"path": str(tiny_pipeline_dir), "device": "cpu"},
        "prompts": {
            "templates": [{"text": "an empty road {time}"}, {"text": "a {common} {time}"}],
            "objects": {"common": {"car": ["red car"], "tent": ["tent"]}},
            "attributes": {"time": ["at night", "in the rain"]},
        },
        "generate": {"height": 64, "width": 96, "num_inference_steps": 1, "batch_size": 4},
        "num_images": 4,
        "val_fraction": 0.25,
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(values))
    return path


COMMANDS = (
    "schema",
    "loop",
    "review",
    "predict",
    "evaluate",
    "export-model",
    "learn",
    "generate",
    "label",
    "export",
)


def test_help_is_quick_and_lists_every_command() -> None:
    code = (
        "import sys; from diffugen.cli.main import build_parser; print(build_parser().format_help());"
        "print(sorted({'torch', 'numpy', 'cv2', 'pydantic', 'tqdm', 'importlib.metadata'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"
    assert set(COMMANDS) <= {line.split()[0] for line in printed.splitlines() if line.startswith("  ")}


def test_a_mistake_in_a_config_is_reported_without_waiting_for_torch() -> None:
    code = (
        "import sys; from diffugen.cli.main import main; main(['loop', 'configs/demo.json', '--set', 'seeds=1']);"
        "print(sorted({'torch', 'diffusers', 'ultralytics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.startswith("diffugen: error: unknown setting 'seeds'; did you mean 'seed'?")
    assert done.stdout.splitlines() == ["[]"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"example:\n  diffugen {command}" in capsys.readouterr().out


def test_the_module_is_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["diffugen", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("diffugen", run_name="__main__")
    assert re.fullmatch(r"diffugen \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "diffugen COMMAND --help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lop", "x.json"], "unknown command 'lop'; did you mean 'loop'?"),
        (["train", "x.json"], "did you mean 'loop'?"),
        ([__file__], "is a file, not a command; for a config write `diffugen loop"),
        (["loop", "x.json", "--sed", "1"], "unknown option '--sed'; did you mean --set?"),
        (["loop", "x.json", "--epochs", "3"], "there is no option '--epochs'; write --set detector.epochs=50"),
        (["loop", "x.json", "--resume"], "the same command resumes a stopped run"),
        (
            ["label", "photos", "--weights", "w.pt", "--out", "o", "conf=0.3"],
            "'conf=0.3' is not an option; write --conf",
        ),
        (["review", "export"], "diffugen review export: error: the following arguments are required: RUN, --out"),
    ],
)
def test_mistakes_in_the_command_line_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "usage:" not in error


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("loop", {"name", "concept", "rounds", "detector"}),
        ("concept", {"model", "concept", "seed"}),
        ("dataset", {"model", "prompts", "generate", "label", "classes", "num_images", "seed"}),
    ],
)
def test_the_schema_is_printed_as_json(kind: str, settings: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--kind", kind]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert settings <= set(schema["properties"])


def test_a_dry_run_prints_the_prompts_and_generates_nothing(
    config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["generate", str(config_path), "--out", str(out), "--dry-run", "--set", "num_images=8"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("an empty road") == 4
    assert "a red car at night    [red car -> car]" in printed
    assert "8 images of 96x64 pixels, 6 different prompts" in printed
    assert "objects: car 2, tent 2" in printed
    assert "images without objects: 4" in printed
    assert not out.exists()


def test_generate_writes_samples_and_a_dataset(
    config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["generate", str(config_path), "--out", str(out)]) == 0
    samples = read_jsonl(out / "samples.jsonl")
    assert [sample["name"] for sample in samples] == ["000000", "000001", "000002", "000003"]
    kept = {sample["name"] for sample in samples if sample["kept"]}
    assert kept >= {sample["name"] for sample in samples if not sample["prompt"]["objects"]}
    assert all(bool(sample["reason"]) != sample["kept"] for sample in samples)
    assert all(sample["labeler"] == "attention" for sample in samples)
    dataset = out / "dataset"
    assert class_names_of(dataset) == ["car", "tent"]
    named = {name for part in own_splits(dataset) for name, _, _ in read_dataset(dataset, part)}
    assert named == kept
    assert read_json(out / "config.json")["num_images"] == 4
    assert f"kept {len(kept)} of 4 images" in capsys.readouterr().out
    before = (out / "samples.jsonl").read_bytes()
    assert main(["generate", str(config_path), "--out", str(out)]) == 0
    assert (out / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_generate_stopped_by_a_signal_names_the_command_that_goes_on(
    config_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    arguments = ["generate", str(config_path), "--out", str(tmp_path / "out"), "--set", "generate.batch_size=2"]

    def stopping_write(contents: dict[Path, bytes]) -> None:
        if any(path.name == "000002.png" for path in contents):
            os.kill(os.getpid(), number)
        write_files(contents)

    with monkeypatch.context() as patch:
        patch.setattr("diffugen.generation.batches.write_files", stopping_write)
        assert main(arguments) == code
    message = f"diffugen: stopped by {number.name}; to resume, run: {shlex.join(sys.orig_argv)}"
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    assert main(arguments) == 0


def test_generate_refuses_a_folder_in_use(
    config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "out"):
        code = main(["generate", str(config_path), "--out", str(tmp_path / "out")])
    assert f"in use by process {os.getpid()}" in error_of(capsys, code)


def test_generate_can_drop_near_duplicates(config_path: Path, tmp_path: Path) -> None:
    """With every bit allowed to differ, each image is a twin of the first that was kept."""
    out = tmp_path / "out"
    assert main(["generate", str(config_path), "--out", str(out), "--set", "drop_duplicates=1.0"]) == 0
    samples = read_jsonl(out / "samples.jsonl")
    (kept,) = [sample["name"] for sample in samples if sample["kept"]]
    dropped = [sample["reason"] for sample in samples if sample["reason"].startswith("near-duplicate")]
    assert dropped and set(dropped) == {f"near-duplicate of {kept}"}


def test_generate_names_mistakes(config_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]

    def error(*options: str) -> str:
        return error_of(capsys, main(["generate", str(config_path), *out, *options]))

    assert error("--set", "generate.hieght=64") == "unknown setting 'generate.hieght'; did you mean 'height'?"
    assert "setting 'num_images' is 0, but must be at least 1" in error("--set", "num_images=0")
    assert "model.path" in error("--set", "model.path=./gone")
    odd = '("a {common} {time}", "a road++ at night").blend(1, 1)'
    assert "more of compel than weights" in error("--set", f"prompts.templates.1.text={odd}")
    assert not (tmp_path / "out" / "images").exists()
    assert "does not exist" in error_of(capsys, main(["generate", str(tmp_path / "gone.json")]))


def test_generate_names_a_learned_token_that_is_in_no_prompt(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from diffugen.diffusion.embeddings import write_embedding

    monkeypatch.chdir(tmp_path)
    write_embedding(tmp_path / "learned.safetensors", "<grand-piano>", [torch.ones(1, 32)])
    code = main(["generate", str(config_path), "--set", 'model.embeddings=["learned.safetensors"]', "--dry-run"])
    error = error_of(capsys, code)
    assert "setting 'model.embeddings': token '<grand-piano>'" in error
    assert "is in no prompt" in error
