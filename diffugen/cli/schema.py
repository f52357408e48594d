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
        "print the JSON schema of the config of `diffugen generate`",
        "Editors that are told of it check and complete a config while it is written.",
        "diffugen schema > generate.schema.json",
    )
    parser.set_defaults(run=_schema)


def _schema(arguments: argparse.Namespace) -> None:
    import json

    from diffugen.config.dataset import DatasetConfig

    print(json.dumps(DatasetConfig.model_json_schema(), indent=2))
