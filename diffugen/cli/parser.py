"""The argument parser of all commands: errors are one sentence that names the option that was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from diffugen.command_line import EXIT_USER_ERROR


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser whose `--set` takes one setting or several.

    Args:
        hints: what to do instead, by the names of options (with hyphens, without the leading ones) that people know
            from other programs.
        summary: the command in a few words, for lists of commands.
        options: as for ArgumentParser.

    Attributes:
        commands: its subcommands by name.
    """

    def __init__(
        self, *args: Any, hints: Mapping[str, str] | None = None, summary: str | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.hints, self.summary = dict(hints or {}), summary
        self.commands: Mapping[str, CommandParser] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(_one_setting_each(sys.argv[1:] if args is None else args), namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in ArgumentParser; an unknown option is named with the one that was probably meant."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = getattr(arguments, "parser", self)  # the subcommand's
            parser.error(parser.unknown_argument(unknown[0]))
        return arguments

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one sentence."""
        self.exit(EXIT_USER_ERROR, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")

    def unknown_argument(self, argument: str) -> str:
        """What is wrong with an argument that is not known, and what to write instead."""
        name = argument.lstrip("-").partition("=")[0].replace("_", "-")
        known = {option.lstrip("-"): option for option in self._option_string_actions}
        if "=" in argument and not argument.startswith("-") and name in known:
            return f"{argument!r} is not an option; write {known[name]} {argument.partition('=')[2]}"
        if name in self.hints:
            return f"there is no option {argument!r}; {self.hints[name]}"
        close = difflib.get_close_matches(name, known, n=1)
        return f"unknown option {argument!r}" + (f"; did you mean {known[close[0]]}?" if close else "")

    def check_no_options(self, values: Sequence[str | Path]) -> None:
        """Refuse options in the form key=value, as ultralytics takes them, among the values of an argument."""
        for value in map(str, values):
            key, equals, _ = value.replace("_", "-").partition("=")
            known = f"--{key}" in self._option_string_actions or key in self.hints
            if equals and known and not Path(value).exists():
                self.error(self.unknown_argument(value))


def _one_setting_each(arguments: Sequence[str]) -> list[str]:
    """Repeat `--set` before each of several settings: a list of any length would take the argument that follows it."""
    spread: list[str] = []
    in_list = False
    for argument in arguments:
        is_setting = re.match(r"[^-=\s][^=\s]*=", argument) is not None
        if in_list and is_setting and spread[-1] != "--set":
            spread.append("--set")
        in_list = argument == "--set" or argument.startswith("--set=") or (in_list and is_setting)
        spread.append(argument)
    return spread
