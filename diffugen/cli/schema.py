"""`diffugen schema`: the JSON schema of configs."""

from __future__ import annotations

import argparse
from typing import Any

from diffugen.cli.options import add_command


def add_schema(commands: Any) -> None:
    """`diffugen schema`."""
    parser = add_command(
        commands,
        "schema",
        "print the JSON schema of a config",
        "An editor that is given the file checks and completes a config while it is written:\n"
        'put "$schema": "loop.schema.json" into the config.',
        "diffugen schema --kind loop > loop.schema.json",
    )
    parser.add_argument(
        "--kind",
        choices=("loop", "concept", "dataset"),
        default="loop",
        help="config of `diffugen loop` (default), `diffugen learn` or `diffugen generate`",
    )
    parser.set_defaults(run=_schema)


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from diffugen.config.schema import schema_of_kind

    print(json.dumps(schema_of_kind(arguments.kind), indent=2))
