"""Generating images with heatmaps, batch by batch, so that a killed run resumes where it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffugen.attention.extract import generate_with_attention
from diffugen.batching import map_groups
from diffugen.checksums import is_intact, read_sealed, write_sealed
from diffugen.config.errors import first_difference
from diffugen.config.settings import GenerateConfig
from diffugen.diffusion.protocol import Pipeline
from diffugen.diffusion.tokens import check_prompt
from diffugen.errors import UserError
from diffugen.files import remove_temporaries, write_files
from diffugen.generation.plan import Plan
from diffugen.generation.variations import Variation
from diffugen.images import png_bytes
from diffugen.progress import progress_bar
from diffugen.sample import Sample

logger = logging.getLogger(__name__)


def generate_batches(
    pipe: Pipeline,
    plan: Plan,
    settings: GenerateConfig,
    *,
    progress: bool = True,
    on_done: Callable[[Sample, bool], object] = lambda sample, made: None,
) -> None:
    """Generate the images of a plan; those that are there already are kept.

    A batch writes its images and heatmaps, then the recipes of its samples (`parts/batch_<first number>.jsonl`): a
    part that is there stands for a finished batch. When the GPU runs out of memory, batches are halved.

    Args:
        pipe: a text-to-image pipeline.
        plan: a whole one is checked first, see `check_plan`.
        settings: size, steps, guidance, batch size.
        progress: show a progress bar.
        on_done: called with every sample once its files are there, and whether they were made now.

    Raises:
        UserError: a prompt does not fit the model, the folder holds other samples, one image is too much for the GPU.
        OSError: the disk is full.
    """
    if plan.is_whole:
        check_plan(pipe, plan, settings)
        for folder in plan.folders:
            remove_temporaries(folder)  # of workers that were killed
    done = _finished(plan)
    for sample in plan.samples:
        if sample.name in done:
            on_done(sample, False)
    # batches are those of the whole plan, so that a run that was stopped makes the same ones
    batches = [[sample for sample in batch if sample.name not in done] for batch in plan.batches(settings.batch_size)]
    pending = [sample for batch in batches for sample in batch]
    numbers = iter(range(len(pending)))
    groups = [[next(numbers) for _ in batch] for batch in batches]

    def run(numbers: Sequence[int]) -> list[None]:
        batch = [pending[number] for number in numbers]
        _generate_batch(pipe, batch, plan, settings)
        for sample in batch:
            on_done(sample, True)
        bar.update(len(batch))
        return [None] * len(batch)

    with progress_bar(
        total=len(plan.samples), initial=len(done), unit="image", desc="generating", disable=not progress
    ) as bar:
        try:
            map_groups(groups, settings.batch_size, run)
        except torch.OutOfMemoryError:
            raise UserError(
                "one image does not fit into the GPU's memory; lower generate.height and generate.width, or set "
                'model.dtype to "float16" or model.low_memory to true'
            ) from None


def check_plan(pipe: Pipeline, plan: Plan, settings: GenerateConfig) -> None:
    """Check before anything is generated that prompts fit the model, and that the folder has no other samples.

    Raises:
        UserError: a prompt does not fit, or the folder has other samples.
    """
    for sample in plan.samples:
        check_prompt(pipe, sample.prompt, settings.attention.attend)
    wanted = {_part_of(sample, plan).name for sample in plan.samples}
    for part in sorted((plan.folder / "parts").glob("batch_*.jsonl")):
        if part.name not in wanted:
            raise _other_samples(plan.folder, part.stem.removeprefix("batch_"), _UNWANTED)


def _generate_batch(pipe: Pipeline, batch: Sequence[Sample], plan: Plan, settings: GenerateConfig) -> None:
    variations = [plan.variations[sample.name] for sample in batch if sample.name in plan.variations]
    results = generate_with_attention(
        pipe,
        [sample.prompt for sample in batch],
        [sample.seed or 0 for sample in batch],
        settings,
        **_load_inputs(variations),
    )
    files: dict[Path, bytes] = {}
    for sample, (image, attention) in zip(batch, results, strict=True):
        assert sample.heatmap_path is not None
        files |= {sample.image_path: png_bytes(image), sample.heatmap_path: attention.to_bytes()}
    write_files(files)
    write_sealed(_part_of(batch[0], plan), [sample.recipe() for sample in batch])


def _part_of(first: Sample, plan: Plan) -> Path:
    """Where the recipes of a batch are, by its first sample."""
    return plan.folder / "parts" / f"batch_{first.image_path.stem}.jsonl"


def _load_inputs(variations: Sequence[Variation]) -> dict[str, Any]:
    """What a batch starts from, as `generate_with_attention` takes it."""
    if not variations:
        return {}
    loaded = [variation.load() for variation in variations]
    inputs: dict[str, Any] = {"images": [image for image, _ in loaded], "strength": variations[0].strength}
    return inputs if loaded[0][1] is None else inputs | {"masks": [mask for _, mask in loaded]}


def _finished(plan: Plan) -> set[str]:
    """Names of the samples that are there; a batch with a damaged or missing file is generated again as a whole."""
    by_image = {sample.recipe()["image"]: sample for sample in plan.samples}
    done: set[str] = set()
    for part in (_part_of(sample, plan) for sample in plan.samples):
        if not part.is_file():
            continue
        try:
            recipes = read_sealed(part)
        except UserError as error:
            logger.warning("%s; its images are generated again", error)
            part.unlink()
            continue
        if not plan.is_whole:  # batches may have had another size
            recipes = [recipe for recipe in recipes if recipe["image"] in by_image]
        for recipe in recipes:
            _check_same(recipe, by_image.get(recipe["image"]), plan.folder)
        samples = [by_image[recipe["image"]] for recipe in recipes]
        if damaged := [path for sample in samples for path in _files_of(sample) if not is_intact(path)]:
            logger.warning("%s is missing or damaged; it is generated again with its batch", damaged[0])
            part.unlink()
        else:
            done.update(sample.name for sample in samples)
    return done


def is_there(sample: Sample) -> bool:
    """Whether the files of a generated sample are there and whole."""
    return sample.heatmap_path is not None and all(is_intact(path) for path in _files_of(sample))


def _files_of(sample: Sample) -> list[Path]:
    return [sample.image_path, *([sample.heatmap_path] if sample.heatmap_path else [])]


def _check_same(recipe: Mapping[str, Any], wanted: Sample | None, folder: Path) -> None:
    name = Path(recipe["image"]).stem
    found = Sample.from_json({**recipe, "name": name}, folder).recipe()
    difference = _UNWANTED if wanted is None else first_difference(found, wanted.recipe())
    if difference:
        raise _other_samples(folder, name, difference)


_UNWANTED = "which is not wanted any more"


def _other_samples(folder: Path, name: str, difference: str) -> UserError:
    return UserError(
        f"{folder} holds other samples than are wanted now (first: {name}, {difference}); choose another folder or "
        "delete this one"
    )
