"""`--set`: settings by dotted keys, in every config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from diffugen.config.loader import ConfigPath, HubPath, Strict, apply_override, load_config
from diffugen.errors import UserError


class Part(Strict):
    """One item of a list."""

    width: int = Field(default=3, ge=1)


class Whole(Strict):
    """A config of several levels."""

    name: str
    parts: tuple[Part, ...] = ()
    main: Part = Part()
    note: str | None = None
    model: HubPath = ""
    files: tuple[ConfigPath, ...] = ()


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=y", ("y", 3, 5)),
        ("name=a=b", ("a=b", 3, 5)),
        ('name="7"', ("7", 3, 5)),
        ("main.width=9", ("x", 9, 5)),
        ("parts.0.width=9", ("x", 3, 9)),
        ('parts.0={"width": 8}', ("x", 3, 8)),
    ],
)
def test_overrides(tmp_path: Path, override: str, expected: tuple[str, int, int]) -> None:
    path = write(tmp_path, {"name": "x", "parts": [{"width": 5}]})
    config = load_config(path, Whole, [override])
    assert (config.name, config.main.width, config.parts[0].width) == expected


def test_the_last_override_wins_and_null_is_null(tmp_path: Path) -> None:
    path = write(tmp_path, {"name": "x", "note": "n"})
    config = load_config(path, Whole, ["main.width=4", "main.width=5", "note=null"])
    assert (config.main.width, config.note) == (5, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name", "--set 'name' must have the form dotted.key=value"),
        ("=3", "must have the form dotted.key=value"),
        ("main..width=3", "must have the form dotted.key=value"),
        ("name.first=3", "what stands before 'first' is not a group of settings"),
        ("parts.7.width=3", "'7' must be an index below 1"),
        ("parts.x=3", "'x' must be an index below 1"),
        ("main.widht=3", "unknown setting 'main.widht'; did you mean 'width'?"),
        ("3=1", "unknown setting '3'; remove it, the known names are name, parts, "),
        ("main.3=1", "unknown setting 'main.3'; remove it, the known names are width"),
        ("parts.0.0=1", "unknown setting 'parts.0.0'"),
        ("parts.00.width=1", "'00' must be an index below 1"),
        (f"parts.{'1' * 5000}=1", "must be an index below 1"),
        ("main.width=" + "1" * 5000, "setting 'main.width' is \"111"),
        ("main=" + "[" * 100_000, "setting 'main' is "),
        ('main={"width": 1, "width": 2}', "setting 'width' stands twice"),
        ("main.width=NaN", "setting 'main.width' is NaN, but must be a finite number"),
        ("//=1", "unknown setting '//'"),
        ("main.width=-1", "setting 'main.width' is -1, but must be at least 1"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path, {"name": "x", "parts": [{"width": 5}]})
    with pytest.raises(UserError) as caught:
        load_config(path, Whole, [override])
    assert message in str(caught.value)


def test_paths_of_overrides_are_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    path = write(tmp_path / "configs", {"name": "x"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    config = load_config(path, Whole, ["model=here", 'files=["a.safetensors", "~/b.safetensors"]'])
    assert config.model == str(tmp_path.resolve() / "here")
    assert config.files == (tmp_path.resolve() / "a.safetensors", Path.home() / "b.safetensors")
    assert type(load_config(path, Whole, ["model=some/hub-id"]).model) is str


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("words.St. Bernard=2", {"St. Bernard": 2, "a.b": {}}),
        ("words.a.b.c=1", {"St. Bernard": 1, "a.b": {"c": 1}}),
        ("words.new=3", {"St. Bernard": 1, "a.b": {}, "new": 3}),
        ("words.3=4", {"St. Bernard": 1, "a.b": {}, "3": 4}),
    ],
)
def test_a_key_that_is_there_may_have_dots(override: str, expected: dict[str, Any]) -> None:
    values: dict[str, Any] = {"words": {"St. Bernard": 1, "a.b": {}}}
    apply_override(values, override)
    assert values == {"words": expected}
