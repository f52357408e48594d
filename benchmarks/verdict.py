"""Does the verdict agree with the truth? `python benchmarks/verdict.py --json FILE [--seed N] [--runs N] [--out DIR]`

Small loops of different quality on the toy world: three objects, photos in the pool or not, other steps, rates, epochs.
Each has a verdict, which sees no truth. The rule of truth, fixed before any run: the F1 of the rare object at a mask
IoU of 0.5, on 60 rendered scenes that nothing else uses, at the threshold in the checkpoint. A detector is usable from
0.6 on. "good" agrees with usable and "failed" with not usable; "doubtful" agrees with an F1 of 0.35 to 0.85. The
same rule is also applied to these scenes with 60 images of other things, on which every find is wrong. Finished runs
are not made again, so the command can be stopped and given again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from other_things import DEMOS, false_finds, images_of

from bootstrap.row import FOUND, FOUND_BY_TRAINED, number, read_rows
from bootstrap.run_folder import RunFolder
from bootstrap.verdict import judge_run
from diffugen.datasets.folder import read_dataset
from diffugen.detector.model import load_detector, predict, threshold_of
from diffugen.evaluation.metrics import label_quality
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.toyworld.scene import COMMON_KINDS
from diffugen.toyworld.scenes_dataset import write_scenes
from train_loop import load_run_config, train_loop

ROOT = Path(__file__).parents[1]
SMALL = (
    "evaluation=null", "rounds.num_rounds=1", "rounds.num_images=24", "concept.batch_size=4",
    "concept.on_failure=continue", "generate.num_inference_steps=10", "executor=null",
)  # fmt: skip
VARIANTS = {
    "60 steps, no pool, 4 epochs": ("concept.steps=60", "pool=null", "detector.epochs=4"),
    "60 steps, pool, 10 epochs": ("concept.steps=60", "detector.epochs=10"),
    "120 steps, no pool, 10 epochs": ("concept.steps=120", "pool=null", "detector.epochs=10"),
    "120 steps, pool, 10 epochs": ("concept.steps=120", "detector.epochs=10"),
    "120 steps, pool, 2 epochs": ("concept.steps=120", "detector.epochs=2"),
    "5 steps, pool once, 10 epochs": ("concept.steps=5", "pool.pasted=0", "detector.epochs=10"),
    "5 steps, pool once, 2 epochs": ("concept.steps=5", "pool.pasted=0", "detector.epochs=2"),
    "ruined concept, no pool, 10 epochs": (
        "concept.steps=60", "concept.learning_rate=0.1", "concept.max_norm_ratio=null", "pool=null",
        "detector.epochs=10",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seed", type=int, default=0, help="of the loops; a rule found on one is tested on another")
    parser.add_argument("--runs", type=int, default=len(VARIANTS) * len(DEMOS), help="how many of the runs")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark/verdict"), help="run folders and scenes")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    cases = [(kind, name) for name in VARIANTS for kind in DEMOS]
    for kind, name in cases[: args.runs]:
        rows.append(measure(kind, name, args.seed, args.out.resolve()))
        print(rows[-1], flush=True)
        agree = {key: sum(row[key] for row in rows) for key in ("agrees", "agrees with other things")}
        write_json(args.json, {"rows": rows, **agree, "runs": len(rows)})
    print(f"{agree} of {len(rows)} verdicts agree with the truth")


def measure(kind: str, name: str, seed: int, out: Path) -> dict[str, Any]:
    """One run, its verdict and the truth."""
    path = ROOT / f"configs/{DEMOS[kind]}.json"
    config = load_run_config(path, [*SMALL, *VARIANTS[name], f"seed={seed}"])
    run = RunFolder(out / f"seed{seed}" / kind / name.replace(", ", "_").replace(" ", "_"))
    if not run.best.is_file():
        train_loop(config, run.path)
    rows = read_rows(run.metrics)
    verdict, (f1, f1_with_others) = judge_run(rows), truth_f1(run, kind, list(config.classes), out)
    return {
        "object": kind,
        "run": name,
        "verdict": verdict.level,
        "found": number(rows[-1], FOUND),
        "found by trained": number(rows[-1], FOUND_BY_TRAINED),
        "f1": f1,
        "other things": false_finds(run.best, config, json.loads(path.read_text())["prompts"]["attributes"]["other"]),
        "agrees": agrees(verdict.level, f1),
        "f1 with other things": f1_with_others,
        "agrees with other things": agrees(verdict.level, f1_with_others),
    }


def truth_f1(run: RunFolder, kind: str, classes: list[str], out: Path) -> tuple[float, float]:
    """The F1 of the rare object at the threshold in the checkpoint: on rendered scenes, and on these with images of
    other things, on which whatever is found is wrong."""
    scenes = out / "scenes" / kind
    if not (scenes / "data.yaml").is_file():
        write_scenes(scenes, 60, 881_000, classes, rare=kind, progress=False)
    detector = load_detector(run.best)
    threshold = threshold_of(detector) or 0.25
    images = list(read_dataset(scenes, "test", [kind]))
    found = predict(detector, [image for _, image, _ in images], class_names=[kind], score_threshold=threshold)
    truth = [one for _, _, one in images]
    pairs = list(zip(found, truth, strict=True))
    others = images_of([one for one in COMMON_KINDS if one not in classes], 4)
    wrong = predict(detector, others, class_names=[kind], score_threshold=threshold)
    return f1_of(pairs), f1_of([*pairs, *((one, Instances.empty(one.size_hw)) for one in wrong)])


def f1_of(pairs: Sequence[tuple[Instances, Instances]]) -> float:
    """The F1 of labels at a mask IoU of 0.5, for pairs of labels and truth."""
    quality = label_quality(pairs)
    precision, recall = quality["precision"] or 0.0, quality["recall"] or 0.0
    return round(2 * precision * recall / max(precision + recall, 1e-9), 3)


def agrees(level: str, f1: float) -> bool:
    """Whether a verdict agrees with the truth, by the rule above."""
    return {"good": f1 >= 0.6, "failed": f1 < 0.6, "doubtful": 0.35 <= f1 <= 0.85}[level]


if __name__ == "__main__":
    main()
