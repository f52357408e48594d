"""What is taken for the object? `python benchmarks/other_things.py --json FILE [--kinds KIND ...] [--seeds N]`

One round of each demo as it is, whose prompts also show things that are none of its classes, and without these prompts
(their share goes to the common classes). Reported: the share of rendered images on which the object is found although
it is not there, at the checkpoint's threshold, by what they show: things of the prompts, things that nothing has shown,
and the run's other classes; what the run itself says of it; and AP on the evaluation set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import ROOT

from bootstrap.evidence import DEFAULT_THRESHOLD
from diffugen.detector.model import load_detector, predict, threshold_of
from diffugen.files import read_jsonl, write_json
from diffugen.toyworld import render
from diffugen.toyworld.scene import COMMON_KINDS, sample_scene
from train_loop import RunConfig, load_run_config, train_loop

DEMOS = {"grand-piano": "demo", "rubber-duck": "demo-rubber-duck", "car-accident": "demo-car-accident"}
FIRST_SEED, NUM_IMAGES = 886_000, 12
"""Of the images of each kind of thing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--kinds", nargs="+", choices=DEMOS, default=list(DEMOS), help="(default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark/other_things"), help="run folders")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        for seed in range(args.seeds):
            for name in ("shown", "not shown"):
                rows.append({"kind": kind, "prompts": name, "seed": seed, **measure(kind, name, seed, args.out)})
                print(rows[-1], flush=True)
                write_json(args.json, rows)


def measure(kind: str, name: str, seed: int, out: Path) -> dict[str, Any]:
    """One round with other things in its prompts or without."""
    path = ROOT / f"configs/{DEMOS[kind]}.json"
    shown = json.loads(path.read_text(encoding="utf-8"))["prompts"]
    changes = [] if name == "shown" else [f"prompts={json.dumps(without_others(shown))}"]
    config = load_run_config(path, ["rounds.num_rounds=1", "executor=null", f"seed={seed}", *changes])
    run = train_loop(config, out / kind / f"seed_{seed}" / name.replace(" ", "_"))
    (row,) = read_jsonl(run.metrics)
    said = {key: row.get(key) for key in ("negatives/other/false_positives", "negatives/generated/false_positives")}
    found = false_finds(run.best, config, shown["attributes"]["other"])
    return {**found, "mAP50-95": row.get("test/mask_map50_95"), "verdict": row["verdict"]["level"], **said}


def without_others(prompts: dict[str, Any]) -> dict[str, Any]:
    """A demo's prompts whose share of other things goes to the common classes."""
    templates = {text: weight for text, weight in prompts["templates"].items() if "{other}" not in text}
    left = sum(prompts["templates"].values()) - sum(templates.values())
    common = [text for text in templates if "{rare}" not in text]
    for text in common:
        templates[text] += left / len(common)
    return {"objects": prompts["objects"], "templates": templates}


def false_finds(weights: Path, config: RunConfig, shown: Sequence[str]) -> dict[str, float]:
    """The share of rendered images of other things on which the rare class is found, by whether prompts showed them.

    Args:
        weights: the detector.
        config: of its run.
        shown: things of the prompts that are none of its classes.
    """
    kinds = {
        "shown": shown,
        "never shown": [kind for kind in COMMON_KINDS if kind not in (*shown, *config.classes)],
        "classes": [kind for kind in config.classes if kind in COMMON_KINDS],
    }
    detector, rare = load_detector(weights), list(config.rare_classes)
    threshold = threshold_of(detector) or DEFAULT_THRESHOLD
    shares = {"threshold": threshold}
    for name, own in kinds.items():
        found = predict(detector, images_of(own, NUM_IMAGES), class_names=rare, score_threshold=threshold)
        shares[name] = round(float(np.mean([len(one) > 0 for one in found])), 3)
    return shares


def images_of(kinds: Sequence[str], num: int) -> list[np.ndarray]:
    """Rendered images that show one thing each: `num` of each kind."""
    seeds = range(FIRST_SEED, FIRST_SEED + num)
    return [render(sample_scene(seed, num_objects=1, required_kinds=(kind,))).image for kind in kinds for seed in seeds]


if __name__ == "__main__":
    main()
