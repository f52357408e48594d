"""What benchmarks that compare whole rounds share: options, a round, a detector trained and measured once, tables."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bootstrap.context import round_context
from bootstrap.labelers import round_labelers
from bootstrap.run_folder import RunFolder
from bootstrap.stages import generate, judge
from diffugen.attention.model_defaults import with_model_defaults
from diffugen.datasets.folder import write_dataset
from diffugen.detector.training import finetune, steps_per_epoch
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError
from diffugen.evaluation.detector import evaluate_detector
from diffugen.files import read_json, write_json
from diffugen.sample import Sample
from diffugen.toyworld.scenes_dataset import write_scenes
from train_loop import RunConfig, load_run_config

ROOT = Path(__file__).parents[1]
METRICS = ("mask_map50", "mask_map50_95")
RARE_FRACTION = 0.8
"""Share of rendered scenes with the rare object, about that of the demo's prompts."""


def options(description: str | None, out: Path) -> argparse.ArgumentParser:
    """The options of all of them; `out` is where run folders go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/demo.json", help="the run (default: the demo)")
    parser.add_argument("--num-images", type=int, help="images per round (default: the config's)")
    parser.add_argument("--out", type=Path, default=out, help=f"run folders (default: {out})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    return parser


def seeded_configs(args: argparse.Namespace, *overrides: str) -> Iterator[RunConfig]:
    """The config of every seed.

    Raises:
        UserError: it has no evaluation set, without which there is nothing to compare.
    """
    if args.num_images is not None:
        overrides = (*overrides, f"rounds.num_images={args.num_images}")
    for seed in range(args.seeds):
        config = load_run_config(args.config, [*args.set, *overrides, f"seed={seed}"])
        if config.evaluation is None:
            raise UserError(f"{args.config} has no evaluation; give a labelled dataset with evaluation.dataset")
        assert config.model is not None
        yield config.resolved(with_model_defaults(config.generate, load_pipeline(config.model)))


def first_round(config: RunConfig, pipe: Any, run: RunFolder) -> list[Sample]:
    """The images of a first round and the pool's photos, labelled by attention and judged; none for validation."""
    context = round_context(config, run, run.round(0))
    return judge(context, generate(context, pipe), round_labelers(config, run, with_detector=False))


def samples_trained(
    config: RunConfig, samples: Sequence[Sample], out: Path, steps: int, photo_repeats: int = 1
) -> dict[str, float]:
    """`trained_scores` of the kept ones among samples, photos repeated."""
    items = repeated([sample for sample in samples if sample.kept], photo_repeats)
    return trained_scores(config, lambda path: write_dataset(path, items, config.classes), len(items), steps, out)


def repeated(samples: Sequence[Sample], photo_repeats: int) -> list[Sample]:
    """Samples with each photo several times; the repetitions are links to one file."""
    again = [
        replace(sample, name=f"{sample.name}_again{number}")
        for sample in samples
        for number in range(1, photo_repeats)
        if sample.is_photo
    ]
    return [*samples, *again]


def truth_trained(config: RunConfig, out: Path, num_images: int, steps: int) -> dict[str, float]:
    """`trained_scores` of rendered scenes with exact masks, from a seed of their own."""

    def write(path: Path) -> None:
        write_scenes(
            path,
            num_images,
            660_000 + config.seed,
            config.classes,
            rare=config.rare_classes[0],
            rare_fraction=RARE_FRACTION,
            split="train",
        )

    return trained_scores(config, write, num_images, steps, out)


def trained_scores(
    config: RunConfig, write: Callable[[Path], object], num_images: int, steps: int, out: Path
) -> dict[str, float]:
    """Fine-tune the base detector on a dataset; the rare class's mask AP on the config's evaluation set.

    Args:
        config: the detector's settings (but for the epochs), the seed and the evaluation set.
        write: writes the dataset's training images into a folder.
        num_images: how many there are.
        steps: of the optimizer, to the nearest epoch.
        out: folder for best.pt and metrics.json; what is there of as many images and steps is not made again.
    """
    result, made_from = out / "metrics.json", {"num_images": num_images, "steps": steps}
    if result.is_file() and read_json(result).items() >= made_from.items():
        return read_json(result)
    write(out / "dataset")
    detector = config.detector.model_copy(update={"epochs": epochs_for(steps, num_images, config)})
    data, workdir = out / "dataset/data.yaml", out / "work"
    finetune(detector.base_weights, data, out / "best.pt", detector, seed=config.seed, workdir=workdir)
    shutil.rmtree(workdir)
    assert config.evaluation is not None  # seeded_configs has seen to it
    truth, rare = config.evaluation, config.rare_classes[0]
    scores = evaluate_detector(out / "best.pt", truth.dataset, config.classes, split=truth.split, imgsz=detector.imgsz)
    write_json(result, {**made_from, **{metric: scores[rare][metric] for metric in METRICS}})
    return read_json(result)


def steps_of(num_images: int, config: RunConfig) -> int:
    """Steps of a fine-tuning by the config."""
    return config.detector.epochs * steps_per_epoch(num_images, config.detector)


def epochs_for(steps: int, num_images: int, config: RunConfig) -> int:
    """Epochs that come nearest to a number of steps."""
    return max(1, round(steps / steps_per_epoch(num_images, config.detector)))


def mean_and_std(values: Sequence[float | None]) -> dict[str, float]:
    """Over the values that could be measured; empty where none could."""
    known = [value for value in values if value is not None]
    return {"mean": float(np.mean(known)), "std": float(np.std(known))} if known else {}


def mean_rows(rows: Sequence[dict[str, Any]], key: str) -> dict[Any, dict[str, dict[str, float]]]:
    """Rows of all seeds by the value of `key`: the mean and standard deviation of every other number but the seed."""
    table: dict[Any, dict[str, dict[str, float]]] = {}
    for value in dict.fromkeys(row[key] for row in rows):
        same = [row for row in rows if row[key] == value]
        table[value] = {
            name: mean_and_std([row[name] for row in same]) for name in same[0] if name not in (key, "seed")
        }
    return table


def markdown(table: dict[Any, dict[str, dict[str, float]]], first: str, columns: dict[str, str]) -> str:
    """A table as it stands in the documentation.

    Args:
        table: from `mean_rows`.
        first: head of the first column, the table's keys.
        columns: head -> name of the figure.
    """
    lines = [f"| {' | '.join([first, *columns])} |", "|---" * (1 + len(columns)) + "|"]
    for key, row in table.items():
        lines.append(f"| {' | '.join([str(key), *(_cell(row[name]) for name in columns.values())])} |")
    return "\n".join(lines)


def _cell(value: dict[str, float]) -> str:
    if not value:
        return "-"
    digits = 1 if value["mean"] >= 1 else 3
    return f"{value['mean']:.{digits}f} ± {value['std']:.{digits}f}"
