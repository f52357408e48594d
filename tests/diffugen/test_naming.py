"""Outputs have names of their own, whatever the inputs are called."""

from __future__ import annotations

import os
import random
import unicodedata
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffugen.naming import MAX_BYTES, text_of, unique_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.png", "b.jpg", "b.png"], ["a", "b_jpg", "b_png"]),
        (["a.jpg", "a.png", "a_png.webp"], ["a_jpg", "a_png", "a_png_webp"]),
        (["day/a.png", "night/a.png", "b.png"], ["day_a", "night_a", "b"]),
        (["a/b.png", "a_b.png"], ["b", "a_b"]),
        ([os.fsdecode(b"caf\xe9.png")], ["caf_xe9"]),
        (["one\ntwo: three?.png"], ["one_uatwo_ three_"]),
        (["../a.png", "/b.png", "..."], ["a", "b", "_"]),
    ],
)
def test_names_are_as_simple_as_they_can_be(paths: list[str], names: list[str]) -> None:
    assert unique_names(paths) == names


def test_names_differ_where_case_and_composition_do_not_count() -> None:
    for paths in (["A.png", "a.png"], ["straße.png", "STRASSE.png"], ["\u00e9.png", "e\u0301.png"], ["a.png", "a.png"]):
        assert len({unicodedata.normalize("NFC", name).casefold() for name in unique_names(paths)}) == 2


def test_long_names_are_cut_and_still_differ(tmp_path: Path) -> None:
    paths = ["é" * 125 + ".png", "é" * 124 + "e.png", "x" * 251 + ".png", "x" * 250 + "y.png"]
    names = unique_names(paths)
    assert len(set(names)) == 4 and max(len(name.encode()) for name in names) <= MAX_BYTES
    for name in names:
        (tmp_path / f".{name}.png.diffugen-tmp.png").touch()


parts = st.text("aAbß_.é\u0301 \n\udcff%", min_size=1, max_size=5).filter(lambda part: part not in (".", ".."))


@settings(deadline=None, max_examples=100)
@given(
    paths=st.lists(st.lists(parts, min_size=1, max_size=3).map("/".join), max_size=12, unique=True),
    seed=st.integers(0, 9),
)
def test_any_paths_get_names_that_file_systems_take_and_that_do_not_depend_on_their_order(
    paths: list[str], seed: int
) -> None:
    names = unique_names(paths)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(paths)
    for name in names:
        assert PurePath(name).name == name and name.isprintable() and 0 < len(name.encode()) <= MAX_BYTES
        assert name not in (".", "..") and not name.startswith(".")
    shuffled = random.Random(seed).sample(list(zip(paths, names, strict=True)), len(paths))
    assert unique_names([path for path, _ in shuffled]) == [name for _, name in shuffled]


def test_paths_are_reported_as_text() -> None:
    assert text_of(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert text_of(PurePath("Flügel/a.png")) == "Flügel/a.png"
