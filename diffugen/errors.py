"""Errors that the user can mend; every command prints them as one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence


class UserError(ValueError):
    """Something that the user gave cannot be used: a setting, a file, a folder.

    The message is one sentence that names the setting or file, and the remedy.
    """


class UserErrors(UserError):
    """Several mistakes that were found together; the message has a line for each.

    Args:
        where: what has them, such as "config demo.json".
        mistakes: one sentence each, at least two.
    """

    def __init__(self, where: str, mistakes: Sequence[str]) -> None:
        super().__init__("\n  ".join([f"{where} has {len(mistakes)} mistakes:", *mistakes]))
        self.mistakes = tuple(mistakes)


def raise_mistakes(where: str, mistakes: Sequence[str]) -> None:
    """Raise one error for all mistakes, if there are any.

    Raises:
        UserError: there is one mistake, or (`UserErrors`) there are several.
    """
    if len(mistakes) == 1:
        raise UserError(mistakes[0])
    if mistakes:
        raise UserErrors(where, mistakes)


def reason_of(error: BaseException) -> str:
    """Why something that the user gave cannot be read, in words for a message; Python's own words name no file's fault.

    A JSON error says where it is; other errors of libraries keep their first line.
    """
    if isinstance(error, json.JSONDecodeError):
        where = f"line {error.lineno}, column {error.colno}"
        return _JSON.get(error.msg, "is not JSON").format(where) if error.doc.strip() else "it is empty"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = error.args[0] if len(error.args) > 1 else error  # what else an error holds is for programs
    text = " ".join(str(words).strip().partition("\n")[0].split()).rstrip(".")
    if isinstance(error, UserError):
        return text
    if "integer string conversion" in text:
        return "a number has too many digits"
    if "deserializing header" in text:  # safetensors names structures of its own
        return "its header is damaged or another format's"
    if "embedded null" in text:
        return "it has a NUL character"
    if found := _KEYWORD.search(text):
        return f"{found[2]} is {'missing' if found[1].startswith('missing') else 'unknown'}"
    is_internal = isinstance(error, TypeError | LookupError | AttributeError) or _PYTHONS_WORDS.search(text)
    return _WRONG_FORM if is_internal or not text else text[:300]


_KEYWORD = re.compile(r"(unexpected keyword argument|missing \d+ required .* arguments?:) ('\w+')")

_WRONG_FORM = "it is not in the form that is expected"

_PYTHONS_WORDS = re.compile(
    "invalid literal|could not convert|can't (de|en)code|values to unpack|object is not|out of range for"
)

_JSON = {
    "Expecting value": "{}: a value is missing, or is not valid JSON",
    "Expecting property name enclosed in double quotes": "{}: a quoted name is missing, or a comma too many",
    "Expecting ',' delimiter": "{}: a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "{}: a colon is missing",
    "Extra data": "{}: something follows the end of the value",
    "Unterminated string starting at": "{}: the text that begins here has no closing quote",
    "Invalid control character at": "{}: a line break or another control character is in a text",
    "Invalid \\escape": "{}: a backslash must be written twice",
    "Invalid \\uXXXX escape": "{}: after \\u must come four digits",
    "Illegal trailing comma before end of object": "{}: a comma is too many",
    "Illegal trailing comma before end of array": "{}: a comma is too many",
}
"""The json module's messages -> ours, with a slot for the place."""
