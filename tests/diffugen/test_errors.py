"""Reasons in messages: ours, whatever Python or a library calls them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from diffugen.errors import UserError, reason_of


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{", "line 1, column 2: a quoted name is missing, or a comma too many"),
        ("[1,]", "line 1, column 4: a value is missing, or is not valid JSON"),
        ('{"a": 1\n "b": 2}', "line 2, column 2: a comma or a closing bracket is missing"),
        ('{"a" 1}', "line 1, column 6: a colon is missing"),
        ("{} {}", "line 1, column 4: something follows the end of the value"),
        ('["a', "line 1, column 2: the text that begins here has no closing quote"),
        ('["a\n"]', "line 1, column 4: a line break or another control character is in a text"),
        (r'["C:\x"]', "line 1, column 5: a backslash must be written twice"),
        (r'["\u12"]', r"line 1, column 4: after \u must come four digits"),
        ("1" * 5000, "a number has too many digits"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_what_is_wrong_with_json(text: str, reason: str) -> None:
    with pytest.raises((ValueError, RecursionError)) as caught:
        json.loads(text)
    assert reason_of(caught.value) == reason


def shown(*, name: str) -> str:
    return name


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (lambda: os.stat("/none.json"), "No such file or directory"),
        (lambda: os.stat("a\0b"), "it has a NUL character"),
        (lambda: {}["names"], "'names' is missing"),
        (lambda: b"\xff".decode(), "it is not UTF-8 text"),
        (lambda: "\ud800".encode(), "it is not UTF-8 text"),
        (lambda: shown(nmae="x"), "'nmae' is unknown"),
        (lambda: shown(), "'name' is missing"),
        (lambda: int("x"), "it is not in the form that is expected"),
        (lambda: float("x"), "it is not in the form that is expected"),
        (lambda: [][1], "it is not in the form that is expected"),
        (lambda: os.stat(None), "it is not in the form that is expected"),  # type: ignore[call-overload]
        (lambda: None.name, "it is not in the form that is expected"),  # type: ignore[attr-defined]
    ],
)
def test_python_has_no_say(action: Callable[[], Any], reason: str) -> None:
    with pytest.raises(Exception) as caught:
        action()
    assert reason_of(caught.value) == reason


def test_other_reasons_are_kept_in_one_line() -> None:
    assert reason_of(ValueError("the mask has\n5 pixels.")) == "the mask has"
    assert reason_of(UserError("a.png is empty; replace it")) == "a.png is empty; replace it"
    assert reason_of(ValueError("a shard ends early", object(), "more")) == "a shard ends early"
    assert reason_of(OSError("Error while deserializing header: X")) == "its header is damaged or another format's"
    assert reason_of(ValueError()) == "it is not in the form that is expected"
