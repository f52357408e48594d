"""The page of all commands, written from their argparse parsers."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]


def page() -> str:
    """Markdown: a section per command, with its usage, its options and its example."""
    commands = list(leaves(command_parser()))
    links = "\n".join(f"| [`{parser.prog}`](#{_anchor(parser)}) | {_cell(summary)} |" for parser, summary in commands)
    sections = "\n\n".join(_section(parser) for parser, _ in commands)
    return (
        "# Commands\n\n"
        "Written from the parsers: `diffugen COMMAND --help` says the same. Exit codes: 0 done, 2 a mistake that the\n"
        "message explains, 130 and 143 stopped by Ctrl-C or SIGTERM.\n\n"
        f"| command | what it does |\n|---|---|\n{links}\n\n{sections}\n"
    )


def command_parser() -> argparse.ArgumentParser:
    """The parser of the `diffugen` command, found where pyproject.toml says that the command is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = project["scripts"]["diffugen"].partition(":")[0]
    parser = import_module(module).build_parser()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def leaves(parser: argparse.ArgumentParser, summary: str = "") -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The parsers of all commands that do something, with what they do in a line."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield parser, summary or (parser.description or "").strip().partition("\n")[0].rstrip(".")
    for group in nested:
        summaries = {choice.dest: choice.help for choice in group._choices_actions}
        for name, child in group.choices.items():
            yield from leaves(child, summaries.get(name) or "")


def _anchor(parser: argparse.ArgumentParser) -> str:
    return parser.prog.replace(" ", "-")


def _section(parser: argparse.ArgumentParser) -> str:
    parts = [f"## {parser.prog} {{#{_anchor(parser)}}}", _prose(parser.description or "")]
    parts.append(f"```text\n{_usage(parser)}\n```")
    shown = [action for action in parser._actions if action.help is not argparse.SUPPRESS and action.dest != "help"]
    if rows := [_row(action) for action in shown]:
        parts.append("| option | meaning |\n|---|---|\n" + "\n".join(rows))
    if parser.epilog:
        parts.append(_epilog(parser.epilog))
    return "\n\n".join(part for part in parts if part)


def _usage(parser: argparse.ArgumentParser) -> str:
    os.environ["COLUMNS"] = "100"  # argparse wraps to the terminal's width, which a page has not
    lines = parser.format_usage().removeprefix("usage: ").replace(" [-h]", "", 1).strip().splitlines()
    return "\n".join(lines[:1] + ["    " + line.strip() for line in lines[1:]])


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    value = action.metavar or ("" if action.nargs == 0 else action.dest)
    if isinstance(action.choices, list | tuple) and not action.metavar:
        value = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    label = names if action.option_strings else f"`{value}`"
    if action.option_strings and value:
        label += f" `{value if isinstance(value, str) else ' '.join(value)}`"
    text = (action.help or "") % {**vars(action), "prog": "diffugen"} if action.help else ""
    return f"| {_cell(label)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _prose(text: str) -> str:
    return text.replace("<", "&lt;")


def _epilog(text: str) -> str:
    """Examples stand as code, the lines before them as their heading."""
    heading, _, body = text.partition("\n")
    if not body:
        return _prose(text)
    lines = "\n".join(line.removeprefix("  ") for line in body.splitlines())
    return f"{heading.capitalize()}\n\n```sh\n{lines.strip()}\n```"
