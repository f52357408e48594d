"""Generating and labelling a round: in this process, or by the workers of `executor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bootstrap.config import LoopConfig
from bootstrap.context import RoundContext
from bootstrap.labelers import (
    EncodedLabels,
    attention_labeler,
    label_batch,
    label_batches,
    label_samples,
    round_labelers,
)
from bootstrap.run_folder import EXECUTOR, RunFolder
from diffugen.diffusion.pipelines import settings_of
from diffugen.diffusion.protocol import Pipeline
from diffugen.executor.base import Advance, Record, Work, shards_of
from diffugen.executor.run import run_job
from diffugen.generation.batches import check_plan
from diffugen.generation.labelled import generate_labelled
from diffugen.generation.plan import Plan
from diffugen.generation.shards import generate_in_shards
from diffugen.labelers.base import Labeler
from diffugen.labelers.loading import LabelerSettings
from diffugen.sample import Sample


def generate_and_label(context: RoundContext, plan: Plan, pipe: Pipeline) -> dict[str, EncodedLabels]:
    """Generate a round's images; returns attention's labels by sample name."""
    config = context.config
    if config.executor is None:
        labeler = attention_labeler(config)
        alone = generate_labelled(pipe, plan, config.generate, labeler, config.label.min_area_fraction)
        return {name: {labeler.name: encoded} for name, (encoded, _) in alone.items()}
    check_plan(pipe, plan, config.generate)
    settings = LabelerSettings(config.classes, config.label, config.device)
    found = generate_in_shards(
        plan, settings_of(pipe), config.generate, settings, config.label.min_area_fraction, config.executor
    )
    return {sample.name: {"attention": record["instances"]} for sample, record in found}


def label_in_round(
    context: RoundContext,
    samples: Sequence[Sample],
    labelers: Mapping[str, Labeler],
    description: str,
    known: Mapping[str, EncodedLabels],
) -> list[EncodedLabels]:
    """Label images by the labelers of a round; arguments as for `label_samples`."""
    config = context.config
    everything_known = all(known.get(sample.name, {}).keys() >= labelers.keys() for sample in samples)
    if config.executor is None or everything_known:
        return label_samples(samples, labelers, description, known)
    batches = [[(sample, known.get(sample.name, {})) for sample in batch] for batch in label_batches(samples)]
    job = LabelJob(config, context.run.path, tuple(labelers), with_detector=context.labeler == "detector")
    records = run_job(
        job,
        shards_of(batches, config.executor.shard_size),
        context.folder.shards / description.replace(" ", "_"),
        config.executor,
        desc=description,
        device=config.device,
    )
    return [record["labels"] for record in records]


@dataclass(frozen=True)
class LabelJob:
    """Labels images; an item is a sample with its known labels, and its record has all `labels`.

    Attributes:
        config: the loop's.
        run: the run folder.
        labelers: names of the round's labelers.
        with_detector: see `round_labelers`.
    """

    config: LoopConfig
    run: Path
    labelers: tuple[str, ...]
    with_detector: bool

    def load(self) -> Work:
        """Load the labelers."""
        labelers = round_labelers(self.config, RunFolder(self.run), with_detector=self.with_detector)

        def work(items: Sequence[tuple[Sample, EncodedLabels]], advance: Advance) -> list[Record]:
            known = {sample.name: labels for sample, labels in items}
            records: list[Record] = []
            for batch in label_batches([sample for sample, _ in items]):
                found = label_batch(batch, labelers, [known[sample.name] for sample in batch])
                records += [
                    {"name": sample.name, "labels": labels} for sample, labels in zip(batch, found, strict=True)
                ]
                advance(len(batch))
            return records

        return work

    def identity(self, items: Sequence[tuple[Sample, EncodedLabels]]) -> Any:
        """The settings, the labelers, the images and what is known of them."""
        config = self.config.model_dump(mode="json", exclude={EXECUTOR, "wandb", "rounds"})
        checker = self.config.rounds.filter.mask2former
        network = None if checker is None else checker.model_dump(mode="json")
        return [config, network, self.labelers, [(sample.recipe(), labels) for sample, labels in items]]

    def folders(self) -> Sequence[Path]:
        """It has no files but its records."""
        return []

    def has_files(self, items: Sequence[Any]) -> bool:
        """It has none."""
        return True

    def title(self, item: tuple[Sample, EncodedLabels]) -> str:
        """The sample's name."""
        return item[0].name
