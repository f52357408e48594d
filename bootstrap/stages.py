"""The stages of a round: generate, label, write the dataset, fine-tune, measure.

Each is a function of explicit arguments that can be run on its own; none knows what the others decided.

A stage whose result is there already returns it; a stage that was cut off is made again (generating goes on
at the first unfinished batch).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bootstrap.config import FilterConfig, PoolConfig
from bootstrap.disagreement import judge_by_agreement, judge_by_score
from bootstrap.samples import SampleRecord, choose_validation, make_sample, read_samples, write_samples
from bootstrap.state import RoundFolder, derive_seed
from diffugen.config import DetectorConfig, GenerateConfig
from diffugen.dataset import DatasetItem, write_dataset
from diffugen.detector import finetune
from diffugen.evaluation import evaluate_detector
from diffugen.generate import GeneratedRecord, generate_batches, read_photos
from diffugen.images import index_map, write_png
from diffugen.labelers import Labeler, LabelInput
from diffugen.prompts import Prompt

LABEL_BATCH = 16
"""Images in memory at a time."""


def generate_round(
    pipe: Any, prompts: Sequence[Prompt], settings: GenerateConfig, folder: RoundFolder, *, seed: int
) -> list[GeneratedRecord]:
    """Generate an image per prompt with its heatmaps; each has its own seed, which follows from `seed`."""
    seeds = [derive_seed(seed, "image", folder.index, number) for number in range(len(prompts))]
    return generate_batches(pipe, prompts, seeds, settings, folder.path)


def read_pool(pipe: Any, pool: PoolConfig, settings: GenerateConfig, folder: RoundFolder) -> list[GeneratedRecord]:
    """Read the attention of the user's own photos, which are then labelled and filtered like generated images."""
    provenance = {"model": str(getattr(pipe, "name_or_path", ""))}
    return read_photos(
        pipe, pool.folder, pool.prompt, folder.path, factors=settings.attention_factors, provenance=provenance
    )


def label_round(
    generated: Sequence[GeneratedRecord],
    attention: Labeler,
    detector: Labeler | None,
    folder: RoundFolder,
    *,
    class_names: Sequence[str],
    rules: FilterConfig,
    rare_ids: Sequence[int] = (),
    val_fraction: float = 0.0,
    seed: int = 0,
) -> list[SampleRecord]:
    """Label generated images and decide which are kept; writes `samples.jsonl` and `masks/`.

    Args:
        generated: the round's images with their heatmaps.
        attention: labels from the heatmaps.
        detector: an earlier round's detector, whose labels are kept where attention agrees with them; without
            one attention's own labels are kept by their score.
        folder: the round's folder.
        class_names: names of the class ids.
        rules: thresholds of the filter.
        rare_ids, val_fraction, seed: with a `val_fraction` above 0 that share of the kept samples becomes the
            validation split (round 0 only).
    """
    if folder.samples.is_file():
        return read_samples(folder)
    samples: list[SampleRecord] = []
    with tqdm(total=len(generated), desc=f"round {folder.index}: labelling", unit="image") as progress:
        for start in range(0, len(generated), LABEL_BATCH):
            records = generated[start : start + LABEL_BATCH]
            samples += _label_batch(records, attention, detector, folder.index, class_names, rules)
            progress.update(len(records))
    if val_fraction > 0:
        samples = choose_validation(samples, rare_ids, val_fraction, seed)
    for sample in samples:
        write_png(folder.masks / f"{sample.source.id}.png", index_map(sample.instances))
    write_samples(folder, samples)  # last: it says that the stage is done
    return samples


def _label_batch(
    records: Sequence[GeneratedRecord],
    attention: Labeler,
    detector: Labeler | None,
    round_index: int,
    class_names: Sequence[str],
    rules: FilterConfig,
) -> list[SampleRecord]:
    inputs = [LabelInput(record.image(), record.prompt, record.heatmaps()) for record in records]
    by_attention = attention.label(inputs)
    if detector is None:
        return [
            make_sample(
                record,
                round_index,
                judge_by_score(record.prompt, heat, class_names, rules),
                attention.name,
                {attention.name: heat},
            )
            for record, heat in zip(records, by_attention, strict=True)
        ]
    return [
        make_sample(
            record,
            round_index,
            judge_by_agreement(record.prompt, heat, found, class_names, rules),
            detector.name,
            {attention.name: heat, detector.name: found},
        )
        for record, heat, found in zip(records, by_attention, detector.label(inputs), strict=True)
    ]


def write_round_dataset(samples: Sequence[SampleRecord], class_names: Sequence[str], folder: RoundFolder) -> Path:
    """The dataset of the kept ones among samples of this round and others, each in its own split."""
    if not folder.dataset.is_dir():
        kept = (sample for sample in samples if sample.kept)
        items = (DatasetItem(sample.name, sample.source.image_path, sample.instances, sample.split) for sample in kept)
        write_dataset(folder.dataset, items, class_names)
    return folder.dataset


def finetune_round(base: Path, dataset: Path, folder: RoundFolder, config: DetectorConfig, *, seed: int) -> Path:
    """Fine-tune the weights at `base` on a dataset; returns the path of the round's checkpoint."""
    if not folder.weights.is_file():
        workdir = folder.path / "finetune"
        finetune(base, dataset / "data.yaml", folder.weights, config, seed=seed, workdir=workdir)
        shutil.rmtree(workdir, ignore_errors=True)
    return folder.weights


def measure(
    weights: Path, dataset: Path, split: str, class_names: Sequence[str], config: DetectorConfig
) -> dict[str, dict[str, float | None]]:
    """Average precision of a checkpoint on a labelled split, as `evaluate_detector` gives it."""
    device = first_device(config)
    return evaluate_detector(weights, dataset, class_names, split=split, imgsz=config.imgsz, device=device)


def first_device(config: DetectorConfig) -> str:
    """Where to predict: a list of GPUs is for training only."""
    return config.device.split(",")[0]
