"""Render unlabelled photos of one kind: `python -m diffugen.toyworld.photos --kind grand-piano --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffugen.command_line import path_option, run_command
from diffugen.images import write_png
from diffugen.outputs import claim_output
from diffugen.toyworld.palette import COLOURS
from diffugen.toyworld.render import render
from diffugen.toyworld.scene import RARE_KINDS, TRAINING_KINDS, sample_scene


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m diffugen.toyworld.photos`."""
    parser = argparse.ArgumentParser(prog="python -m diffugen.toyworld.photos", description=__doc__)
    parser.add_argument(
        "--kind", required=True, choices=RARE_KINDS + TRAINING_KINDS, metavar="KIND", help="what they show"
    )
    parser.add_argument("--out", type=path_option, required=True, help="folder of the photos")
    parser.add_argument("--num", type=int, default=6, help="number of photos")
    parser.add_argument("--seed", type=int, default=880_000, help="first seed")
    args = parser.parse_args(arguments)

    def command() -> None:
        claim_output(args.out, "toyworld.photos")
        write_photos(args.kind, args.out, args.num, args.seed)

    return run_command(command, "toyworld.photos")


def write_photos(kind: str, out: Path, num: int = 6, seed: int = 880_000) -> list[Path]:
    """Write `num` pictures of one object each, every one of another colour, as 128x128 PNG files."""
    paths = []
    for k in range(num):
        colour = list(COLOURS)[k % len(COLOURS)]
        scene = sample_scene(seed + k, num_objects=1, required_kinds=(kind,), colour=colour)
        paths.append(out / f"{kind}_{k}.png")
        write_png(paths[-1], render(scene).image)
    return paths


if __name__ == "__main__":
    sys.exit(main())
