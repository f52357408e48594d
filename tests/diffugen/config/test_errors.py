"""Differences between configs are named."""

from __future__ import annotations

import pytest

from diffugen.config.errors import first_difference


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "setting 'a.b' changed from 1 to 2"),
        ({"a": 1}, {}, "setting 'a' changed from 1 to None"),
        ({}, {"a": 1}, "setting 'a' changed from None to 1"),
        ({"a": [1, 2]}, {"a": [1]}, "setting 'a' changed from [1, 2] to [1]"),
        ({"a": {"b": 1}}, {"a": None}, "setting 'a' changed from {'b': 1} to None"),
    ],
)
def test_the_first_difference_is_named(old: dict, new: dict, sentence: str | None) -> None:
    assert first_difference(old, new) == sentence
