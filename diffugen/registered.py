"""What packages above `diffugen` register for it, as it may not import them: commands and kinds of configs.

They do so by entry points in pyproject.toml, as any third package could.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffugen.errors import UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMANDS = "diffugen.commands"
"""Functions of the parsed arguments, by the name of the subcommand."""

CONFIGS = "diffugen.configs"
"""Schemas of configs (pydantic models), by the name of the subcommand that reads them."""


def run_registered(name: str) -> Callable[[Any], int | None]:
    """A function that runs a registered command on its parsed arguments; the command is imported when it is called."""

    def run(arguments: Any) -> int | None:
        entries = registered(COMMANDS)
        if name not in entries:
            raise UserError(f"the command {name!r} is not registered; install the package again: pip install .")
        return entries[name].load()(arguments)

    return run


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name.

    In a checkout they are those of its own pyproject.toml, whether and when ever it was installed.
    """
    from importlib.metadata import EntryPoint, entry_points  # a third of the time that `diffugen --help` takes

    project = Path(__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        return {entry.name: entry for entry in entry_points(group=group)}
    import tomllib

    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"][group]
    return {name: EntryPoint(name, value, group) for name, value in table.items()}
