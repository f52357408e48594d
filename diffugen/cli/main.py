"""The `diffugen` command. Heavy imports wait until a subcommand needs them, so that help comes at once."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffugen.cli.evaluate import add_evaluate
from diffugen.cli.export import add_export, add_export_model
from diffugen.cli.generate import add_generate
from diffugen.cli.init import add_init
from diffugen.cli.label import add_label
from diffugen.cli.loop import add_compare, add_learn, add_loop
from diffugen.cli.parser import CommandParser
from diffugen.cli.predict import add_predict
from diffugen.cli.review import add_review
from diffugen.cli.schema import add_schema
from diffugen.command_line import EXIT_USER_ERROR, run_command

GROUPS: Sequence[tuple[str, Sequence[Callable[[Any], None]]]] = (
    ("1. describe your object in a config", (add_init, add_schema)),
    ("2. train a detector", (add_loop, add_review, add_compare)),
    ("3. use and measure it", (add_predict, add_evaluate, add_export_model)),
    ("single steps and datasets", (add_learn, add_generate, add_label, add_export)),
)
"""The subcommands by what one does in what order."""

HINTS = {"train": "loop", "detect": "predict", "segment": "predict", "val": "evaluate", "convert": "export"}
"""Names of commands elsewhere, and ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console command; `argv` defaults to the process's arguments."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if not argv:
        parser.print_help()
        return EXIT_USER_ERROR
    if not argv[0].startswith("-") and argv[0] not in parser.commands:
        parser.error(_unknown_command(argv[0], list(parser.commands)))
    arguments = parser.parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def build_parser() -> CommandParser:
    """All subcommands and their help; `commands` of the returned parser has theirs by name."""
    parser = CommandParser(
        prog="diffugen",
        usage="diffugen COMMAND ...",
        description="From a handful of unlabelled photos to a segmentation model.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(prog="diffugen", metavar="COMMAND", help=argparse.SUPPRESS, required=True)
    parser.commands = commands.choices
    lines = []
    for title, group in GROUPS:
        before = len(commands.choices)
        for add in group:
            add(commands)
        added = list(commands.choices.items())[before:]
        lines += [f"{title}:", *(f"  {name:<14}{command.summary}" for name, command in added), ""]
    parser.epilog = "\n".join([*lines, "`diffugen COMMAND --help` explains a command, with an example."])
    return parser


def _unknown_command(name: str, known: Sequence[str]) -> str:
    if Path(name).is_file():
        return f"{name!r} is a file, not a command; for a config write `diffugen loop {name}`"
    close = [HINTS[name]] if name in HINTS else difflib.get_close_matches(name, known, n=1)
    return f"unknown command {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"use {', '.join(known)}")


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than all other help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("diffugen")
        except PackageNotFoundError:
            number = "of a checkout that is not installed"
        print(f"diffugen {number}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
