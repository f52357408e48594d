"""What do unlabelled photos add to a few labelled ones?
`python benchmarks/photographs.py --data FOLDER --weights COCO.pt --json FILE [--labelled 8 4] [--seeds 3]`

FOLDER has images/ and their outlines as instances.json (COCO), of one class, such as the balloons of Mask R-CNN. Each
seed deals the photos anew: some labelled, 13 to measure on, the rest a pool without labels. A loop of photographs alone
runs on them; its rounds are compared with the same detector trained on all labels, for as many epochs as all rounds
together. What is finished is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bootstrap.run_folder import RunFolder, derive_seed
from diffugen.config.loader import validate
from diffugen.datasets.folder import class_names_of, read_dataset, write_dataset
from diffugen.detector.training import finetune
from diffugen.evaluation.detector import evaluate_detector
from diffugen.files import read_jsonl, write_json
from diffugen.images import write_png
from diffugen.sample import Sample
from train_loop import RunConfig, train_loop

NUM_MEASURED = 13
"""Photos that are neither labelled nor in the pool."""


def main() -> None:
    parser = options(__doc__, Path("runs/benchmark/photographs"))
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the loop (default: 3)")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for number in args.labelled:
            folder = args.out / f"seed{seed}_labelled{number}"
            config = config_of(args, seed, deal(args.data, folder, number, seed))
            run = train_loop(config, folder / "run")
            bound = trained_on(for_all_rounds(config), folder, "all")
            rows.append({"seed": seed, "labelled": number, **figures(run), "all labels": bound})
            write_json(args.json, rows)
            print(rows[-1], flush=True)


def options(description: str | None, out: Path) -> argparse.ArgumentParser:
    """The options of every benchmark on dealt photos; `out` is where run folders go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances.json")
    parser.add_argument("--weights", type=Path, required=True, help="base detector")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--labelled", type=int, nargs="+", default=[8, 4], help="numbers of labelled photos")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--epochs", type=int, default=15, help="of each fine-tune (default: 15)")
    parser.add_argument("--imgsz", type=int, default=416, help="pixels (default: 416)")
    parser.add_argument("--out", type=Path, default=out, help=f"folder of the runs (default: {out})")
    return parser


def deal(data: Path, folder: Path, num_labelled: int, seed: int) -> Path:
    """Deal the photos into labelled ones, a pool and those to measure on; all but the latter with labels as well."""
    path = data / "instances.json"
    names = class_names_of(path)
    photos = list(read_dataset(path, "train", images=data / "images"))
    order = np.random.default_rng(seed).permutation(len(photos))
    parts = {
        "measured": order[:NUM_MEASURED],
        "labelled": order[NUM_MEASURED : NUM_MEASURED + num_labelled],
        "all": order[NUM_MEASURED:],
    }
    for part, chosen in parts.items():
        if not (folder / part).is_dir():
            split = "test" if part == "measured" else "train"
            own = (photos[index] for index in chosen)
            samples = (Sample.labelled(name, image, found, split) for name, image, found in own)
            write_dataset(folder / part, samples, names)
    for index in order[NUM_MEASURED + num_labelled :]:
        name, image, _ = photos[index]
        if not (folder / "pool" / f"{name}.png").is_file():
            write_png(folder / "pool" / f"{name}.png", image)
    return folder


def config_of(args: argparse.Namespace, seed: int, folder: Path) -> RunConfig:
    """The loop's config; everything that is not here is as `diffugen loop` has it."""
    values = {
        "name": folder.name,
        "seed": seed,
        "classes": class_names_of(folder / "labelled"),
        "pool": {"folder": str(folder / "pool")},
        "labelled": str(folder / "labelled"),
        "detector": {"base_weights": str(args.weights), "imgsz": args.imgsz, "epochs": args.epochs},
        "rounds": {"num_rounds": args.rounds},
        "evaluation": {"dataset": str(folder / "measured")},
    }
    return validate(values, RunConfig, folder=Path.cwd())


def for_all_rounds(config: RunConfig) -> RunConfig:
    """The config of one fine-tuning that takes as many epochs as all rounds of the loop together."""
    longer = config.detector.model_copy(update={"epochs": config.detector.epochs * config.rounds.num_rounds})
    return config.model_copy(update={"detector": longer})


def figures(run: RunFolder) -> dict[str, Any]:
    """Of each round: mAP50-95 of the photos to measure on, the loop's own evidence, and whether it was promoted."""
    rows = read_jsonl(run.metrics)
    promoted = [row["round"] for row in rows if row["promoted"]]
    return {
        "rounds": [
            {
                "mAP50-95": row.get("test/mask_map50_95"),
                "own evidence": row.get("val/image_agreement"),
                "kept": f"{row['num_kept']} of {row['num_generated']}",
                "promoted": row["promoted"],
                "why": row["why"],
                "label recall": row.get("test/labels/detector/recall"),
            }
            for row in rows
        ],
        "end": rows[promoted[-1]].get("test/mask_map50_95"),
    }


def trained_on(config: RunConfig, folder: Path, name: str) -> float | None:
    """mAP50-95, on the photos to measure on, of the base detector fine-tuned on a dataset of a dealt folder, such as
    "all", the labels of the pool as well."""
    weights = folder / f"{name}.pt"
    if not weights.is_file():
        seed, data = derive_seed(config.seed, "detector", 0), folder / name / "data.yaml"
        finetune(config.detector.base_weights, data, weights, config.detector, seed=seed, workdir=folder / "finetune")
    return mask_map(weights, config, folder / "measured")


def mask_map(weights: Path, config: RunConfig, dataset: Path) -> float | None:
    """Mask mAP50-95 over the classes on a dataset's split "test"."""
    classes: Sequence[str] = config.classes
    imgsz, device = config.detector.imgsz, config.detector.first_device
    return evaluate_detector(weights, dataset, classes, imgsz=imgsz, device=device)["mean"]["mask_map50_95"]


if __name__ == "__main__":
    main()
