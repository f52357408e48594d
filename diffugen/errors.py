"""Errors that the user can mend; every command prints them as one sentence."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave cannot be used: a setting, a file, a folder.

    The message is one sentence that names the setting or file, and the remedy.
    """
