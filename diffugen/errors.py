"""Errors that the user can mend; every command prints them as one sentence."""

from __future__ import annotations


class ConfigError(ValueError):
    """Something that the user gave is wrong; the message names the setting and the remedy."""
