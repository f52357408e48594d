"""Generating and labelling a plan by several workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from diffugen.config.executor import ExecutorConfig
from diffugen.config.settings import GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.executor.base import Advance, Record, Work, shards_of
from diffugen.executor.run import run_job
from diffugen.generation.batches import is_there
from diffugen.generation.labelled import generate_labelled
from diffugen.generation.plan import Plan
from diffugen.labelers.base import Labeler
from diffugen.sample import Sample


class LoadLabeler(Protocol):
    """How a worker gets its labeler: paths and settings."""

    def load(self) -> Labeler:
        """Load it.

        Raises:
            UserError: it cannot be loaded.
        """
        ...

    def identity(self) -> Any:
        """JSON of all that its labels follow from."""
        ...


@dataclass(frozen=True)
class GenerateJob:
    """Generates samples and labels them; an item is a sample with what it starts from.

    Records have the sample's `name`, its labels (`instances`), and what is `missing` in it.

    Attributes:
        model, settings, min_area_fraction: see `generate_labelled`.
        labeler: its class ids index the plan's class names.
        plan: without its samples.
    """

    model: ModelConfig
    settings: GenerateConfig
    labeler: LoadLabeler
    min_area_fraction: float
    plan: Plan

    def load(self) -> Work:
        """Load the pipeline and the labeler."""
        pipe, labeler = load_pipeline(self.model), self.labeler.load()

        def work(items: Sequence[Any], advance: Advance) -> list[Record]:
            plan = self._part(items)

            def tell(_: Sample, made: bool) -> None:
                advance(1, made=made)

            found = generate_labelled(pipe, plan, self.settings, labeler, self.min_area_fraction, on_done=tell)
            return [
                {"name": name, "instances": encoded, "missing": missing}
                for name, (encoded, missing) in ((sample.name, found[sample.name]) for sample in plan.samples)
            ]

        return work

    def _part(self, items: Sequence[Any]) -> Plan:
        variations = {sample.name: variation for sample, variation in items if variation is not None}
        return replace(self.plan, samples=tuple(sample for sample, _ in items), variations=variations)

    def identity(self, items: Sequence[Any]) -> Any:
        """The recipes of the samples, and the settings of the labels."""
        recipes = [sample.recipe() for sample, _ in items]
        return [self.plan.class_names, self.min_area_fraction, self.labeler.identity(), recipes]

    def folders(self) -> Sequence[Path]:
        """Where images, heatmaps and recipes are."""
        return self.plan.folders

    def has_files(self, items: Sequence[Any]) -> bool:
        """Whether all images and heatmaps are there."""
        return all(is_there(sample) for sample, _ in items)

    def title(self, item: tuple[Sample, Any]) -> str:
        """The sample's name."""
        return item[0].name


def generate_in_shards(
    plan: Plan,
    model: ModelConfig,
    settings: GenerateConfig,
    labeler: LoadLabeler,
    min_area_fraction: float,
    executor: ExecutorConfig,
) -> Iterator[tuple[Sample, Record]]:
    """Generate and label a plan as `generate_labelled` does, by several workers.

    Args:
        plan: its prompts were checked, see `check_plan`.
        model: loaded by each worker.
        settings, min_area_fraction: see `generate_labelled`.
        labeler: loaded by each worker.
        executor: who works.

    Yields:
        Each sample in the order of the plan, with its record, see `GenerateJob`.

    Raises:
        UserError: see `run_job`.
    """
    nothing = replace(plan, samples=(), variations={}, is_whole=False)
    job = GenerateJob(model, settings, labeler, min_area_fraction, nothing)
    batches = [
        [(sample, plan.variations.get(sample.name)) for sample in batch] for batch in plan.batches(settings.batch_size)
    ]
    shards = shards_of(batches, executor.shard_size)
    records = run_job(job, shards, records_of(plan), executor, desc="generating", device=model.device)
    return zip(plan.samples, records, strict=True)


def without_device(model: ModelConfig) -> ModelConfig:
    """The model where only its configs and tokenizer are asked: workers have the GPUs, if this machine has any."""
    return model.model_copy(update={"device": "cpu", "low_memory": False})


def records_of(plan: Plan) -> Path:
    """Where the records of a plan's shards are."""
    return plan.folder / "shards"
