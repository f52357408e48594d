"""What the loop reaches: `python benchmarks/loop.py --json FILE [--seeds N] [--config FILE]`

For every seed, on the config's evaluation set (rendered scenes that nothing else uses):
- loop: the rare class's mask AP after every round, and of the promoted checkpoint;
- bound: the same detector trained on as many rendered, truly labelled images for as many steps;
- single: round 0 alone, given the images and steps of all rounds together.
Every run resumes, so the command can be stopped and given again.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.detector import finetune
from diffugen.evaluation import evaluate_detector
from diffugen.files import read_json, read_jsonl, write_json
from diffugen.toyworld.scenes_dataset import write_scenes
from train_loop import RunConfig, load_run_config, train_loop

ROOT = Path(__file__).parents[1]
METRICS = ("mask_map50", "mask_map50_95")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/demo.json", help="the run")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"), help="run folders")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    args = parser.parse_args()
    results = []
    for seed in range(args.seeds):
        config = load_run_config(args.config, [*args.set, f"seed={seed}"])
        results.append(measure_seed(config, args.out / config.name / f"seed_{seed}"))
        write_json(args.json, {"config": args.config.name, "seeds": results, "mean": summarise(results)})
    print(read_json(args.json)["mean"])


def measure_seed(config: RunConfig, out: Path) -> dict[str, Any]:
    """Run the loop, the bound and the single round of one seed."""
    run = train_loop(config, out / "loop")
    rows = read_jsonl(run.metrics)
    best = [row for row in rows if row["promoted"]][-1]
    steps = sum(_steps(num, config) for num in _train_sizes(out / "loop", len(rows)))
    num_images = _train_sizes(out / "loop", len(rows))[-1]
    rounds = config.rounds.model_copy(
        update={"num_rounds": 1, "num_images": config.rounds.num_images * config.rounds.num_rounds}
    )
    detector = config.detector.model_copy(update={"epochs": _epochs(steps, num_images, config)})
    single = train_loop(config.model_copy(update={"rounds": rounds, "detector": detector}), out / "single")
    return {
        "seed": config.seed,
        "rounds": [_scores(row) for row in rows],
        "best": _scores(best),
        "single": _scores(read_jsonl(single.metrics)[-1]),
        "bound": truth_trained(config, out / "bound", num_images, steps),
        "num_train_images": num_images,
        "steps": steps,
    }


def truth_trained(config: RunConfig, out: Path, num_images: int, steps: int) -> dict[str, float]:
    """The detector trained on rendered scenes with exact masks, from a seed of its own."""
    result = out / "metrics.json"
    rare = config.rare_classes[0]
    if not result.is_file():
        data = write_scenes(
            out / "dataset",
            num_images,
            660_000 + config.seed,
            config.classes,
            rare=rare,
            rare_fraction=0.8,
            split="train",
        )
        detector = config.detector.model_copy(update={"epochs": _epochs(steps, num_images, config)})
        weights = finetune(
            detector.base_weights, data / "data.yaml", out / "best.pt", detector, seed=config.seed, workdir=out / "work"
        )
        assert config.evaluation is not None  # main's configs have one, and load_run_config checked it
        truth = config.evaluation
        scores = evaluate_detector(weights, truth.dataset, config.classes, split=truth.split, imgsz=detector.imgsz)
        write_json(result, {metric: scores[rare][metric] for metric in METRICS})
    return read_json(result)


def summarise(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and spread over the seeds, and the loop's share of the bound."""
    summary: dict[str, dict[str, float]] = {}
    for metric in METRICS:
        for name in ("best", "single", "bound"):
            values = [result[name][metric] for result in results]
            summary[f"{name}/{metric}"] = {"mean": float(np.mean(values)), "std": float(np.std(values))}
        shares = [result["best"][metric] / result["bound"][metric] for result in results]
        summary[f"best_of_bound/{metric}"] = {"mean": float(np.mean(shares)), "std": float(np.std(shares))}
    return summary


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    return {"kept": row["num_kept"], **{metric: row.get(f"test/{metric}") for metric in METRICS}}


def _train_sizes(run: Path, num_rounds: int) -> list[int]:
    return [len(list((run / f"round_{k:02d}/dataset/images/train").glob("*"))) for k in range(num_rounds)]


def _steps(num_images: int, config: RunConfig) -> int:
    return config.detector.epochs * math.ceil(num_images / config.detector.batch_size)


def _epochs(steps: int, num_images: int, config: RunConfig) -> int:
    return max(1, round(steps / math.ceil(num_images / config.detector.batch_size)))


if __name__ == "__main__":
    main()
