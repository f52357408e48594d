"""What the loop reaches: `python benchmarks/loop.py --json FILE [--seeds N] [--config FILE]`

For every seed, on the config's evaluation set (rendered scenes that nothing else uses):
- loop: the rare class's mask AP after every round, and of the promoted checkpoint;
- bound: the same detector trained on as many rendered, truly labelled images for as many steps;
- single: round 0 alone, given the images and steps of all rounds together.
Every run resumes, so the command can be stopped and given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comparison import METRICS, epochs_for, mean_and_std, options, seeded_configs, steps_of, truth_trained

from diffugen.files import read_jsonl, write_json
from train_loop import RunConfig, train_loop


def main() -> None:
    args = options(__doc__, Path("runs/benchmark")).parse_args()
    results: list[dict[str, Any]] = []
    for config in seeded_configs(args):
        results.append(measure_seed(config, args.out / config.name / f"seed_{config.seed}"))
        write_json(args.json, {"config": args.config.name, "seeds": results, "mean": summarise(results)})
    print(summarise(results))


def measure_seed(config: RunConfig, out: Path) -> dict[str, Any]:
    """Run the loop, the bound and the single round of one seed."""
    run = train_loop(config, out / "loop")
    rows = read_jsonl(run.metrics)
    best = [row for row in rows if row["promoted"]][-1]
    steps = sum(steps_of(num, config) for num in _train_sizes(out / "loop", len(rows)))
    num_images = _train_sizes(out / "loop", len(rows))[-1]
    rounds = config.rounds.model_copy(
        update={"num_rounds": 1, "num_images": config.rounds.num_images * config.rounds.num_rounds}
    )
    detector = config.detector.model_copy(update={"epochs": epochs_for(steps, num_images, config)})
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


def summarise(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and spread over the seeds, and the loop's share of the bound."""
    summary: dict[str, dict[str, float]] = {}
    for metric in METRICS:
        for name in ("best", "single", "bound"):
            summary[f"{name}/{metric}"] = mean_and_std([result[name][metric] for result in results])
        shares = [result["best"][metric] / result["bound"][metric] for result in results]
        summary[f"best_of_bound/{metric}"] = mean_and_std(shares)
    return summary


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    return {"kept": row["num_kept"], **{metric: row.get(f"test/{metric}") for metric in METRICS}}


def _train_sizes(run: Path, num_rounds: int) -> list[int]:
    return [len(list((run / f"round_{k:02d}/dataset/images/train").glob("*"))) for k in range(num_rounds)]


if __name__ == "__main__":
    main()
