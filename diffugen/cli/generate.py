"""`diffugen generate`: a labelled dataset from a config."""

from __future__ import annotations

import argparse
from typing import Any

from diffugen.cli.options import CONFIG_HINTS, add_command, add_overlays, add_set
from diffugen.command_line import path_option


def add_generate(commands: Any) -> None:
    """`diffugen generate`."""
    parser = add_command(
        commands,
        "generate",
        "generate labelled images once, without rounds or a detector",
        "Generates images from prompt templates, or variations of images, and labels them by cross-attention.\n"
        "Writes OUT/dataset (YOLO-seg and COCO), OUT/samples.jsonl (a line per image: prompt, seed, labels,\n"
        "whether it was kept and why not), OUT/images and OUT/heatmaps. A stopped run resumes with the same\n"
        "command. Configs of DiffuGen's first release run as they are.",
        "diffugen generate configs/generate.json --out runs/first --set num_images=100",
        hints=CONFIG_HINTS,
    )
    parser.add_argument("config", type=path_option, metavar="CONFIG", help="JSON config; see `diffugen schema`")
    parser.add_argument("--out", type=path_option, metavar="DIR", help="output folder (default: runs/<CONFIG>)")
    add_set(parser, "generate.width=768 num_images=20")
    add_overlays(parser)
    parser.add_argument("--dry-run", action="store_true", help="print prompts, counts and estimates, write nothing")
    parser.add_argument(
        "--task", choices=("txt2img", "img2img", "inpaint"), help="one task of a config of DiffuGen's first release"
    )
    parser.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    from diffugen.config.jobs import load_jobs
    from diffugen.generation.generate_dataset import generate_dataset

    jobs = load_jobs(arguments.config, arguments.set, out=arguments.out, task=arguments.task)
    for job in jobs:
        source = getattr(job.config.task, "source", None)
        if arguments.dry_run and source and not source.exists() and source in (other.out.resolve() for other in jobs):
            print(f"\n{job.config.task.kind}: starts from {source}, which has to be there first")
            continue
        generate_dataset(job.config, job.out, dry_run=arguments.dry_run, overlays=arguments.overlays)
