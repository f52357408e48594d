"""`python -m textual_inversion CONFIG`: learn a concept, or several, each from a folder of photos."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from diffugen.cli.loop import add_learn_arguments
from diffugen.cli.options import CONFIG_HINTS
from diffugen.cli.parser import CommandParser
from diffugen.command_line import run_command
from diffugen.config.loader import load_config
from diffugen.outputs import claimed_output, paths_in
from textual_inversion.config import ConceptRunConfig
from textual_inversion.record import is_begun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for a mistake of the user's, 130 or 143 when stopped."""
    parser = CommandParser(
        prog="python -m textual_inversion",
        description="Teach a diffusion model an object from a handful of photos. The result is an embedding "
        "file that a model config, or diffusers' load_textual_inversion, takes. A stopped run resumes with "
        "the same command.",
        hints=CONFIG_HINTS,
    )
    add_learn_arguments(parser)
    options = parser.parse_args(arguments)
    return run_command(lambda: run_learn(options), "textual_inversion")


def run_learn(options: argparse.Namespace) -> None:
    """`diffugen learn`, `python -m textual_inversion`."""
    config = load_config(options.config, ConceptRunConfig, options.set)
    from textual_inversion.learn import Setup, learn_concepts  # seconds of imports; a typo should not have to wait

    logging.getLogger("textual_inversion").setLevel(logging.INFO)
    out = options.out or Path("runs") / options.config.stem
    with claimed_output(out, "learn", paths_in(config.model_dump()), is_earlier=is_begun):
        learned = learn_concepts(config.concept, Setup(config.model, seed=config.seed), out)
    print(*learned.embeddings[len(config.model.embeddings) :], sep="\n")


if __name__ == "__main__":
    sys.exit(main())
