"""Train the toy world's base detector from scratch on rendered common kinds: the stand-in for COCO weights.

`python -m diffugen.toyworld.train_detector --out DIR` puts the weights and their record into the package.
It needs half an hour of one core; cut off, it starts from its beginning.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from diffugen.command_line import path_option, run_command
from diffugen.config.settings import DetectorConfig
from diffugen.detector.model import load_detector, new_detector, save_detector
from diffugen.detector.training import train
from diffugen.evaluation.detector import evaluate_detector
from diffugen.files import read_json, write_json
from diffugen.outputs import claim_output
from diffugen.toyworld.scene import COMMON_KINDS
from diffugen.toyworld.scenes_dataset import write_scenes

WEIGHTS = Path(__file__).parent / "weights" / "detector.safetensors"
TRAIN_SEED, TEST_SEED = 7001, 7002
_TRAIN_PARTS = (((128, 128), 0.8), ((96, 128), 0.1), ((128, 96), 0.1))  # size_hw, share of the scenes
_DISTRACTORS = 0.1  # share of the scenes with an unlabelled invented object


def train_base_detector(out: Path, weights: Path, *, num: int, epochs: int, device: str) -> None:
    """Render scenes, train from scratch, write the weights and their record (.json) beside."""
    start = time.monotonic()
    config = DetectorConfig(imgsz=128, epochs=epochs, batch_size=16, learning_rate=2e-3, device=device)
    last = train(new_detector(COMMON_KINDS), _render_training_scenes(out, num), config, seed=0, workdir=out)
    save_detector(load_detector(last), weights)
    record = {
        "architecture": "yolov8n-seg",
        "command": f"python -m diffugen.toyworld.train_detector --num {num} --epochs {epochs}",
        "recipe": {
            "scenes": num,
            "sizes_hw": [list(size) for size, _ in _TRAIN_PARTS],
            "seed": TRAIN_SEED,
            "distractor_fraction": _DISTRACTORS,
            **config.model_dump(exclude={"device"}),
        },
        "hardware": f"{_hardware(device)}, {torch.get_num_threads()} thread(s)",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "classes": list(COMMON_KINDS),
    }
    write_json(weights.with_suffix(".json"), record)


def measure_base_detector(out: Path, weights: Path, num_test: int) -> float:
    """Measure the weights on unseen scenes, add the figures to their record; returns the mean mask mAP50."""
    test = write_scenes(out / "test", num_test, TEST_SEED, COMMON_KINDS)
    measured = evaluate_detector(weights, test, COMMON_KINDS, split="test", imgsz=128)
    record = read_json(weights.with_suffix(".json"))
    write_json(weights.with_suffix(".json"), record | {"test": {"scenes": num_test, "seed": TEST_SEED, **measured}})
    return measured["mean"]["mask_map50"] or 0.0


def _render_training_scenes(out: Path, num: int) -> Path:
    """One dataset per image size; a data.yaml over all of them."""
    folders = []
    for i, (size_hw, share) in enumerate(_TRAIN_PARTS):
        folder = out / f"train_{size_hw[0]}x{size_hw[1]}"
        write_scenes(
            folder, max(1, round(num * share)), TRAIN_SEED + 10 * (i + 1), COMMON_KINDS,
            size_hw=size_hw, split="train", distractor_fraction=_DISTRACTORS,
        )  # fmt: skip
        folders.append(f"{folder.name}/images/train")
    names = [f"  {i}: {name}" for i, name in enumerate(COMMON_KINDS)]
    listed = [f"  - {folder}" for folder in folders]
    text = "\n".join(["train:", *listed, "val:", listed[-1], "names:", *names]) + "\n"
    (out / "data.yaml").write_text(text, encoding="utf-8")
    return out / "data.yaml"


def _hardware(device: str) -> str:
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()}-core {platform.machine()} CPU"


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m diffugen.toyworld.train_detector`."""
    parser = argparse.ArgumentParser(description="Train the toy world's base detector from scratch.")
    parser.add_argument(
        "--out", type=path_option, required=True, help="scratch folder: rendered scenes and the training run"
    )
    parser.add_argument(
        "--weights", type=path_option, default=WEIGHTS, help="where the weights go (default: into the package)"
    )
    parser.add_argument("--num", type=int, default=3000, help="training scenes (default: 3000)")
    parser.add_argument("--num-test", type=int, default=500, help="unseen scenes to measure on (default: 500)")
    parser.add_argument("--epochs", type=int, default=14, help="(default: 14)")
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', or a GPU's number")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--measure-only", action="store_true", help="measure the weights that are there")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    if args.threads:
        torch.set_num_threads(args.threads)

    def command() -> None:
        claim_output(args.out, "toyworld.train_detector")
        if not args.measure_only:
            train_base_detector(args.out, args.weights, num=args.num, epochs=args.epochs, device=args.device)
        map50 = measure_base_detector(args.out, args.weights, args.num_test)
        print(f"mask mAP50 {map50:.3f} on {args.num_test} unseen scenes; weights: {args.weights}")

    return run_command(command, "toyworld.train_detector")


if __name__ == "__main__":
    sys.exit(main())
