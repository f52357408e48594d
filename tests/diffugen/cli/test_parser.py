"""The parser of all commands: several settings after one `--set`."""

from __future__ import annotations

import pytest

from diffugen.cli.main import build_parser
from diffugen.cli.options import add_set, dataset_path, device
from diffugen.cli.parser import CommandParser


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], []),
        (["--set", "a=1", "b.c=[2]"], ["a=1", "b.c=[2]"]),
        (["--set", "a=1", "--set", "b=x y"], ["a=1", "b=x y"]),
        (["--set=a=1", "b=2", "--dry-run"], ["a=1", "b=2"]),
        (["--set", "no setting"], ["no setting"]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_set_takes_one_setting_or_several(arguments: list[str], settings: list[str], first: bool) -> None:
    parser = CommandParser(prog="x")
    parser.add_argument("config")
    parser.add_argument("--dry-run", action="store_true")
    add_set(parser, "a=1")
    parsed = parser.parse_args(["c.json", *arguments] if first else [*arguments, "c.json"])
    assert (parsed.config, parsed.set) == ("c.json", settings)
    assert parsed.dry_run == ("--dry-run" in arguments)


def test_a_data_yaml_stands_for_its_folder(tmp_path) -> None:
    (tmp_path / "data.yaml").write_text("")
    assert dataset_path(str(tmp_path / "data.yaml")) == tmp_path == dataset_path(str(tmp_path))
    assert dataset_path("nothing/data.yaml").name == "data.yaml"


@pytest.mark.parametrize(("given", "name"), [("0", "cuda:0"), ("cpu", "cpu"), ("cuda:1", "cuda:1"), ("auto", "auto")])
def test_a_number_is_a_gpu(given: str, name: str) -> None:
    assert device(given) == name


@pytest.mark.parametrize(
    "options",
    [
        ["--split", "../x"], ["--split", ".."], ["--split", ""], ["--split", "a\nb"],
        ["--split", " "], ["--split", "train "], ["--split", "."],
        ["--classes", "car,car"], ["--classes", ","],
    ],
)  # fmt: skip
def test_values_that_cannot_be_meant_are_named(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "instances.json", "--out", "out", *options])
    assert f"argument {options[0]}: {options[1]!r} is no" in capsys.readouterr().err


def test_sizes_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["predict", "a.png", "--weights", "w.pt", "--out", "out", "--imgsz", "1000000"])
    assert "must be a multiple of 32, at most 8192" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["abc", "", "1e3", "640.0", "9" * 5000])
def test_a_size_that_is_no_number_is_refused_in_our_words(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["predict", "a.png", "--weights", "w.pt", "--out", "out", "--imgsz", given])
    assert f"argument --imgsz: {given[:60]!r} must be a multiple of 32" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["nan", "abc", "", "-0.1", "inf"])
def test_a_fraction_lies_between_0_and_1(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["predict", "a.png", "--weights", "w.pt", "--out", "out", f"--conf={given}"])
    assert f"argument --conf/--score-threshold: {given!r} must be a number from 0 to 1" in capsys.readouterr().err


OPTIONS = {
    "--out": "export coco.json --out",
    "--images": "export coco.json --out out --images",
    "SOURCE": "export --out out",
    "--weights": "predict a.png --out out --weights",
    "--data": "evaluate --weights w.pt --data",
    "--json": "evaluate --weights w.pt --data truth --json",
    "--model": "label photos --out out --model",
    "--mask2former": "label photos --out out --mask2former",
    "--decoder": "label photos --out out --model toy --decoder",
    "CONFIG": "loop",
    "PHOTOS": "init",
    "RUN": "compare a",
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "the path is empty; write one"),
        (" ", "the path is empty; write one"),
        ("a\0b", r"'a\x00b' has a NUL character; give another path"),
        ("\ud800", r"'\ud800' has half a character (a lone surrogate); give another path"),
        ("x" * 300, "is no path (File name too long); give another path"),
        ("x/" * 5000, "is no path (File name too long); give another path"),
    ],
)
def test_paths_that_cannot_be_are_named(
    option: str, path: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([*OPTIONS[option].split(), path])
    message = capsys.readouterr().err
    assert f"argument {option}" in message and reason in message and len(message) < 300


def test_a_split_has_a_name_that_a_folder_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "instances.json", "--out", "out", "--split", "x" * 300])
    assert f"argument --split: '{'x' * 60}' is no plain name" in capsys.readouterr().err


def test_a_home_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(dataset_path("~/data")) == "/home/somebody/data"
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "a.json", "--out", "~nobody-has-this-name/x"])
    assert "argument --out: '~nobody-has-this-name/x' is no path" in capsys.readouterr().err


def test_an_executor_without_a_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["predict", "a.png", "--weights", "w.pt", "--out", "out", "--executor", "2"])
    assert "argument --executor: '2' must have the form KEY=VALUE, such as num_workers=2" in capsys.readouterr().err
