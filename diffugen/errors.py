"""Errors that the user can mend; every command prints them as one sentence."""

from __future__ import annotations

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
