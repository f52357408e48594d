"""`python -m textual_inversion CONFIG`: learn a concept, or several, each from a folder of photos."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from diffugen.command_line import run_command
from diffugen.config.loader import load_config
from diffugen.files import locked
from textual_inversion.config import ConceptRunConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for a mistake of the user's, 130 or 143 when stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m textual_inversion",
        description="Teach a diffusion model an object from a handful of photos. The result is an embedding "
        "file that a model config, or diffusers' load_textual_inversion, takes. A stopped run goes on with "
        "the same command.",
    )
    parser.add_argument(
        "config",
        type=Path,
        help='JSON: {"model": {"path": ...}, "concept": {"photos": ..., ...}}; or a list of concepts',
    )
    parser.add_argument("--out", type=Path, help="folder for the results (default: runs/<name of the config>)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting: concept.steps=300",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def command() -> None:
        config = load_config(options.config, ConceptRunConfig, options.set)
        from textual_inversion.learn import learn_concepts  # seconds of imports; a typo should not have to wait

        out = options.out or Path("runs") / options.config.stem
        with locked(out):
            learned = learn_concepts(config.concept, config.model, out)
        print(*learned.embeddings[len(config.model.embeddings) :], sep="\n")

    return run_command(command, "textual_inversion")


if __name__ == "__main__":
    sys.exit(main())
