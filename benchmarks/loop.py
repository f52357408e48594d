"""What the loop reaches: `python benchmarks/loop.py --json FILE [--seeds N] [--config FILE]`

For every seed, on the config's evaluation set (rendered scenes that nothing else uses):
- loop: the rare class's mask AP after every round, and of the promoted checkpoint;
- bound: the same detector trained on as many rendered, truly labelled images for as many steps;
- single: round 0 alone, given the images and steps of all rounds together (`--arms single`).
Is generating worth it? Further arms (`--arms photos paste generated`) train the same detector for as many steps:
- photos: on the user's photos alone, labelled by attention in one pass, repeated;
- paste: on the photos' cut-outs, pasted into the loop's generated images that do not show the object;
- generated: on the loop's kept generated images alone.
The last round's and the arms' AP is also measured on scenes whose colour, place or weather no photo shows (`--seen`).
Every run resumes, so the command can be stopped and given again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from comparison import (
    METRICS,
    epochs_for,
    mean_and_std,
    options,
    samples_trained,
    seeded_configs,
    steps_of,
    truth_trained,
)

from bootstrap.config import EvaluationConfig
from bootstrap.pasting import plan_pastes
from bootstrap.run_folder import RunFolder
from bootstrap.training_set import written
from diffugen.evaluation.detector import evaluate_groups
from diffugen.files import read_jsonl, write_json
from diffugen.sample import read_samples
from train_loop import RunConfig, train_loop

ARMS = ("single", "photos", "paste", "generated")
DEMO_PHOTOS = """red blue green yellow orange purple desert village forest beach clear rain snow""".split()
"""What the demo's six photos of a piano show, in the words of the evaluation set."""


def main() -> None:
    parser = options(__doc__, Path("runs/benchmark"))
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="(default: all)")
    parser.add_argument("--seen", nargs="*", default=DEMO_PHOTOS, help="what the photos show (default: the demo's)")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    for config in seeded_configs(args):
        out = args.out / config.name / f"seed_{config.seed}"
        results.append(measure_seed(config, out, args.arms, args.seen))
        write_json(args.json, {"config": args.config.name, "seeds": results, "mean": summarise(results)})
    print(summarise(results))


def measure_seed(config: RunConfig, out: Path, arms: Sequence[str], seen: Sequence[str]) -> dict[str, Any]:
    """Run the loop, the bound and the other arms of one seed."""
    run = train_loop(config, out / "loop")
    rows = read_jsonl(run.metrics)
    best = [row for row in rows if row["promoted"]][-1]
    sizes = _train_sizes(out / "loop", len(rows))
    steps = sum(steps_of(num, config) for num in sizes)
    weights = {"best": run.best}
    for arm in ("bound", *arms):
        weights[arm] = train_arm(arm, config, run, out / arm, sizes[-1], steps)
    assert config.evaluation is not None  # seeded_configs has seen to it
    groups = {"unseen": unseen_scenes(config.evaluation, config.rare_classes[0], seen)}
    measured = {arm: scores(path, config, groups) for arm, path in weights.items()}
    return {
        "seed": config.seed,
        "rounds": [_scores(row) for row in rows],
        **measured,
        "promoted_round": best["round"],
        "num_unseen": len(groups["unseen"]),
        "num_train_images": sizes[-1],
        "steps": steps,
    }


def train_arm(arm: str, config: RunConfig, run: RunFolder, out: Path, num_images: int, steps: int) -> Path:
    """Train one arm's detector for as many steps as the loop took; returns its weights."""
    if arm == "single":
        rounds = config.rounds.model_copy(
            update={"num_rounds": 1, "num_images": config.rounds.num_images * config.rounds.num_rounds}
        )
        detector = config.detector.model_copy(update={"epochs": epochs_for(steps, num_images, config)})
        return train_loop(config.model_copy(update={"rounds": rounds, "detector": detector}), out).best
    if arm == "bound":
        truth_trained(config, out, num_images, steps)
        return out / "best.pt"
    samples = [sample for folder in run.complete_rounds() for sample in read_samples(folder.samples) if sample.kept]
    first = read_samples(run.round(0).samples)
    photos = [sample for sample in first if sample.is_photo and sample.kept]
    generated = [sample for sample in samples if not sample.is_photo and sample.split == "train"]
    if arm == "photos":
        samples_trained(config, photos, out, steps, max(1, num_images // max(1, len(photos))))
    elif arm == "generated":
        samples_trained(config, generated, out, steps)
    else:
        rare_ids = [config.classes.index(name) for name in config.rare_classes]
        pastes = plan_pastes([*photos, *generated], rare_ids, num_images // max(1, len(photos)), config.seed)
        samples_trained(config, list(written((), pastes)), out, steps)
    return out / "best.pt"


def scores(weights: Path, config: RunConfig, groups: dict[str, set[str]]) -> dict[str, Any]:
    """The rare class's AP on all scenes of the evaluation set, and on groups of them."""
    truth, rare = config.evaluation, config.rare_classes[0]
    assert truth is not None
    tables = evaluate_groups(
        weights, truth.dataset, config.classes, groups, split=truth.split, imgsz=config.detector.imgsz
    )
    measured: dict[str, Any] = {}
    for group, table in tables.items():
        prefix = "" if group is None else f"{group}/"
        measured |= {f"{prefix}{metric}": table[rare][metric] for metric in METRICS}
    others = [table for name, table in tables[None].items() if name in config.classes and name != rare]
    return measured | {f"common/{metric}": mean_and_std([row[metric] for row in others])["mean"] for metric in METRICS}


def unseen_scenes(evaluation: EvaluationConfig, rare: str, seen: Iterable[str]) -> set[str]:
    """Names of scenes whose rare object has a colour, or that have a place or weather, that no photo shows."""
    known, names = set(seen), set()
    for line in (evaluation.dataset / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        scene = json.loads(line)
        colours = {
            phrase.split()[0] for phrase, kind in zip(scene["phrases"], scene["kinds"], strict=True) if kind == rare
        }
        shown = (colours - {rare}) | {scene["attributes"][slot] for slot in ("place", "weather")}
        if rare in scene["kinds"] and shown - known:
            names.add(scene["name"])
    return names


def summarise(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and spread over the seeds, and the loop's share of the bound."""
    summary: dict[str, dict[str, float]] = {}
    for arm in ("best", "bound", *ARMS):
        for metric in results[0].get(arm, {}):
            summary[f"{arm}/{metric}"] = mean_and_std([result[arm][metric] for result in results])
    for metric in METRICS:
        shares = [result["best"][metric] / result["bound"][metric] for result in results]
        summary[f"best_of_bound/{metric}"] = mean_and_std(shares)
    return summary


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    return {"kept": row["num_kept"], **{metric: row.get(f"test/{metric}") for metric in METRICS}}


def _train_sizes(run: Path, num_rounds: int) -> list[int]:
    return [len(list((run / f"round_{k:02d}/dataset/images/train").glob("*"))) for k in range(num_rounds)]


if __name__ == "__main__":
    main()
