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
