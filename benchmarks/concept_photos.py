"""How many photos does a concept need? `python benchmarks/concept_photos.py --json FILE [--config FILE] [--seeds N]`

For 1, 3, 6 and 12 photos, with the embedding alone and with a LoRA beside it: the rare class's mask AP of the first
round's detector on the config's evaluation set, mean and standard deviation over the seeds. Every seed has photos of
its own; fewer photos are the first of more. Where the config has a pool, it is the same photos. Every run resumes,
and finished ones are not run again: the command can be stopped and given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.files import read_jsonl, write_json
from diffugen.toyworld.photos import write_photos
from textual_inversion.config import LoraSettings
from train_loop import RunConfig, load_run_config, train_loop

ROOT = Path(__file__).parents[1]
NUM_PHOTOS = (1, 3, 6, 12)
FIRST_PHOTO_SEED = 880_000  # of the demo's own photos, which are seed 0's first six
METRICS = ("mask_map50", "mask_map50_95")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/demo.json", help="a run of one rare concept")
    parser.add_argument("--photos", type=int, nargs="+", default=NUM_PHOTOS, help="numbers of photos")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark/concept-photos"), help="run folders")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    args = parser.parse_args()
    cells: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        config = load_run_config(args.config, [*args.set, f"seed={seed}", "rounds.num_rounds=1"])
        for num_photos in args.photos:
            for lora in (False, True):
                cells.append(measure(config, num_photos, lora, args.out / config.name))
                write_json(args.json, {"config": args.config.name, "cells": cells, "table": summarise(cells)})
    print(markdown(summarise(cells)))


def measure(config: RunConfig, num_photos: int, lora: bool, out: Path) -> dict[str, Any]:
    """Run one round with a concept from `num_photos` photos; one cell of the table."""
    (concept,) = config.concept
    kind = concept.placeholder_token.strip("<>")
    photos = (out / f"photos_{num_photos}_seed_{config.seed}").resolve()
    write_photos(kind, photos, num_photos, FIRST_PHOTO_SEED + 1_000 * config.seed)
    update: dict[str, Any] = {
        "concept": (concept.model_copy(update={"photos": photos, "lora": LoraSettings() if lora else None}),)
    }
    if config.pool is not None:
        update["pool"] = config.pool.model_copy(update={"folder": photos})
    name = f"photos_{num_photos}_{'lora' if lora else 'token'}_seed_{config.seed}"
    run = train_loop(config.model_copy(update=update), out / "runs" / name)
    row = read_jsonl(run.metrics)[0]
    scores = {metric: row[f"test/{metric}"] for metric in METRICS}
    return {"num_photos": num_photos, "lora": lora, "seed": config.seed, "num_kept": row["num_kept"], **scores}


def summarise(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds of every cell."""
    table = []
    for num_photos, lora in sorted({(cell["num_photos"], cell["lora"]) for cell in cells}):
        same = [cell for cell in cells if (cell["num_photos"], cell["lora"]) == (num_photos, lora)]
        row: dict[str, Any] = {"num_photos": num_photos, "lora": lora, "num_seeds": len(same)}
        for metric in METRICS:
            values = [cell[metric] for cell in same]
            row |= {metric: float(np.mean(values)), f"{metric}_std": float(np.std(values))}
        table.append(row)
    return table


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table as it stands in the documentation."""
    lines = ["| photos | LoRA | mask mAP50 | mask mAP50-95 |", "|---|---|---|---|"]
    for row in table:
        scores = (f"{row[metric]:.3f} ± {row[f'{metric}_std']:.3f}" for metric in METRICS)
        lines.append(f"| {row['num_photos']} | {'yes' if row['lora'] else 'no'} | {' | '.join(scores)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
