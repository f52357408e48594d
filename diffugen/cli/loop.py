"""`diffugen loop`, `learn` and `compare`: their arguments; who does their work is registered."""

from __future__ import annotations

import argparse
from typing import Any

from diffugen.cli.options import CONFIG_HINTS, add_command, add_set
from diffugen.command_line import path_option
from diffugen.registered import run_registered


def add_loop(commands: Any) -> None:
    """`diffugen loop`."""
    parser = add_command(
        commands,
        "loop",
        "run the whole loop: learn the object, then rounds of images, labels and fine-tuning",
        "Learns the concept, then runs the rounds: generate, label, filter, fine-tune, promote or roll back.\n"
        "Writes OUT/best.pt (the detector), OUT/dataset (what it was trained on), OUT/report.html and a folder\n"
        "per round. A stopped run resumes with the same command. `python train_loop.py` is the same command.",
        "diffugen loop configs/demo.json --dry-run\n"
        "  diffugen loop configs/demo.json --out runs/first --set rounds.num_rounds=2 seed=1",
        hints=CONFIG_HINTS,
    )
    add_loop_arguments(parser)
    parser.set_defaults(run=run_registered("loop"))


def add_compare(commands: Any) -> None:
    """`diffugen compare`."""
    parser = add_command(
        commands,
        "compare",
        "two runs side by side: verdicts, figures with their evidence, settings that differ",
        "Prints a table of the two runs' promoted rounds. Every figure says on what it was measured.",
        "diffugen compare runs/first runs/second",
    )
    parser.add_argument("first", type=path_option, metavar="RUN", help="run folder, such as runs/demo")
    parser.add_argument("second", type=path_option, metavar="RUN", help="another one")
    parser.set_defaults(run=run_registered("compare"))


def add_loop_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a loop."""
    parser.add_argument(
        "config", type=path_option, metavar="CONFIG", help="JSON config of a loop, such as configs/demo.json"
    )
    parser.add_argument(
        "--out", type=path_option, metavar="DIR", help="run folder (default: runs/<name of the config>)"
    )
    add_set(parser, "rounds.num_rounds=5")
    text = "check everything, print what would be done and what it takes, write nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)


def add_learn(commands: Any) -> None:
    """`diffugen learn`."""
    parser = add_command(
        commands,
        "learn",
        "learn a concept from photos by textual inversion",
        "Teaches a diffusion model a new word for an object. Writes OUT/learned_embeds.safetensors, which\n"
        "`model.embeddings` of a config and diffusers' load_textual_inversion read, the loss, and sample images.\n"
        "A stopped run resumes with the same command. `python -m textual_inversion` is the same command.",
        "diffugen learn concept.json --out runs/concept --set concept.steps=300",
        hints=CONFIG_HINTS,
    )
    add_learn_arguments(parser)
    parser.set_defaults(run=run_registered("learn"))


def add_learn_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of learning concepts."""
    text = 'JSON config: {"model": {"path": ...}, "concept": {"photos": ..., ...}}; or a list of concepts'
    parser.add_argument("config", type=path_option, metavar="CONFIG", help=text)
    parser.add_argument("--out", type=path_option, metavar="DIR", help="output folder (default: runs/<CONFIG>)")
    add_set(parser, "concept.steps=300")
