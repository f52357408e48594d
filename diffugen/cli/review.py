"""`diffugen review`: the arguments of the command; who does its work is registered."""

from __future__ import annotations

from typing import Any

from diffugen.cli.options import add_command
from diffugen.cli.parser import CommandParser
from diffugen.command_line import path_option
from diffugen.registered import run_registered

OUTCOMES = ("review", "reject", "keep")


def add_review(commands: Any) -> None:
    """`diffugen review`."""
    parser = add_command(
        commands,
        "review",
        "correct labels of a run by hand in Label Studio: export tasks, import corrections",
        "`export` writes the samples that a person should look at, with the labels that they have. `import`\n"
        "reads Label Studio's JSON export; later rounds train on the corrected labels.",
        "diffugen review export runs/demo --out tasks.json\n  diffugen review import runs/demo corrected.json",
    )
    add_review_arguments(parser)
    parser.set_defaults(run=run_registered("review"))


def add_review_arguments(parser: CommandParser) -> None:
    """The two steps of a review and their arguments."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    parser.commands = steps.choices
    out: CommandParser = steps.add_parser("export", help="write Label Studio tasks with the labels so far")
    out.add_argument("run_folder", type=path_option, metavar="RUN", help="run folder, such as runs/demo")
    out.add_argument(
        "--out", type=path_option, required=True, metavar="FILE", help="tasks (.json); the XML goes beside it"
    )
    out.add_argument("--embed-images", action="store_true", help="images inside the tasks, not in a folder beside them")
    out.add_argument("--outcome", choices=OUTCOMES, action="append", help="which samples; repeatable (default: review)")
    back: CommandParser = steps.add_parser("import", help="read Label Studio's JSON export for the run's next round")
    back.add_argument("run_folder", type=path_option, metavar="RUN", help="run folder, such as runs/demo")
    back.add_argument("export", type=path_option, metavar="FILE", help="the exported file")
    for step in (out, back):
        step.set_defaults(parser=step)
