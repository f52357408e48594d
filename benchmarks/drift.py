"""Does a detector get worse by its own labels, and does the loop notice?
`python benchmarks/drift.py --data FOLDER --weights COCO.pt --json FILE`

FOLDER has images/ and labels/: maps of class numbers (PNG), such as CamVid's frames of a drive. A loop of photographs
alone runs on the first frames, without a label; the truth of the others tells the IoU of all pixels of cars, of the
base detector and of every round's. What is finished is not made again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap.row import BASE_AGREEMENT, IMAGE_AGREEMENT, read_rows
from bootstrap.verdict import judge_run
from diffugen.config.loader import validate
from diffugen.detector.model import load_detector, predict
from diffugen.files import link_file, write_json
from diffugen.images import list_images, read_image
from train_loop import RunConfig, train_loop

CARS: Mapping[str, Sequence[str]] = {"car": ["car", "truck", "bus"]}
CAR, VOID = 8, 11
"""Numbers in CamVid's maps; pixels of the latter do not count."""
THRESHOLD, IMGSZ = 0.25, 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--weights", type=Path, required=True, help="base detector that knows cars")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--frames", type=int, default=40, help="frames without labels; the rest measures (default: 40)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the loop (default: 3)")
    parser.add_argument("--epochs", type=int, default=15, help="of each fine-tune (default: 15)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark/drift"), help="folder of the runs")
    args = parser.parse_args()
    frames = list_images(args.data / "images")
    shutil.rmtree(args.out / "pool", ignore_errors=True)  # a call with more frames may have left some that measure now
    for frame in frames[: args.frames]:
        link_file(frame, args.out / "pool" / frame.name)
    measured = frames[args.frames :]
    base = car_iou(args.weights, CARS["car"], args.data, measured)
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        rows.append({"seed": seed, "base": base, **measure(args, seed, measured)})
        print(rows[-1], flush=True)
        write_json(args.json, rows)


def measure(args: argparse.Namespace, seed: int, measured: Sequence[Path]) -> dict[str, Any]:
    """One loop: the truth about each round, and what the loop says."""
    values = {
        "name": "drift",
        "seed": seed,
        "classes": list(CARS),
        "pool": {"folder": str(args.out / "pool")},
        "detector": {"base_weights": str(args.weights), "class_map": CARS, "imgsz": IMGSZ, "epochs": args.epochs},
        "rounds": {"num_rounds": args.rounds},
    }
    run = train_loop(validate(values, RunConfig, folder=Path.cwd()), args.out / f"seed{seed}")
    rows = read_rows(run.metrics)
    verdict = judge_run(rows)
    return {
        "rounds": [
            {
                "car IoU": car_iou(run.round(row["round"]).weights, list(CARS), args.data, measured),
                "promoted": row["promoted"],
                "kept": f"{row['num_kept']} of {row['num_generated']}",
                "own evidence": row.get(IMAGE_AGREEMENT),
                "the base's with itself": row.get(BASE_AGREEMENT),
            }
            for row in rows
        ],
        "handed over": car_iou(run.best, list(CARS), args.data, measured) if run.best.is_file() else "the base",
        "verdict": [verdict.level, *verdict.reasons],
    }


def car_iou(weights: Path, names: Sequence[str], data: Path, frames: Sequence[Path]) -> float:
    """IoU of the pixels of all cars of all frames."""
    detector = load_detector(weights)
    images = [read_image(frame) for frame in frames]
    found = predict(detector, images, class_names=names, score_threshold=THRESHOLD, imgsz=IMGSZ)
    both = either = 0
    for frame, instances in zip(frames, found, strict=True):
        truth = read_image(data / "labels" / f"{frame.stem}.png")[..., 0]
        cars = instances.masks.any(axis=0)
        both += int((cars & (truth == CAR)).sum())
        either += int(((cars | (truth == CAR)) & (truth != VOID)).sum())
    return round(both / either, 4)


if __name__ == "__main__":
    main()
