"""What a run would do and take, before it does anything."""

from __future__ import annotations

from collections.abc import Sequence

from bootstrap.config import LoopConfig
from bootstrap.prompts import round_prompts
from bootstrap.run_folder import RunFolder
from bootstrap.time_left import round_title
from diffugen.diffusion.protocol import Pipeline
from diffugen.generation.estimate import measure
from diffugen.generation.plan import Plan, plan_samples

NUM_PROMPTS_SHOWN = 10


def describe_run(config: LoopConfig, run: RunFolder, pipe: Pipeline | None, known: Sequence[str]) -> list[str]:
    """Lines that say what the rest of a run would do, and what its images would take.

    Args:
        config: the loop's settings, checked.
        run: the run folder, which need not be there.
        pipe: the pipeline, without the concept's words; runs a few denoising steps. None: it is not on this machine.
        known: the classes of the base detector.
    """
    num_done, num_rounds = len(run.complete_rounds()), config.rounds.num_rounds
    num_left = max(0, num_rounds - num_done)
    state = f"resumes after {num_done} of {num_rounds} rounds" if run.config.is_file() else "new"
    lines = [f"run folder: {run.path} ({state})", *_training(config, known)]
    if not num_left:
        return [*lines, "nothing is left to do: all rounds are complete"]
    if config.model is None:
        return [*lines, *_rounds(config, num_left)]
    plan = _plan(config, run, num_done, config.model.path)
    about = (
        f"{NUM_PROMPTS_SHOWN} of {len(plan.samples)} prompts" if len(plan.samples) > NUM_PROMPTS_SHOWN else "prompts"
    )
    lines += [
        *_rounds(config, num_left),
        "",
        f"{about} of {round_title(num_done, num_rounds)}:",
        *(f"  {line}" if line else "" for line in plan.describe(config.generate, NUM_PROMPTS_SHOWN)),
        "",
        f"generating all {num_left * config.rounds.num_images} images (not learning, labelling and fine-tuning) takes:",
    ]
    if pipe is None:
        return [*lines, f"  unknown, as model.path {config.model.path!r} is not on this machine"]
    return [*lines, *(f"  {line}" for line in measure(pipe, config.model, config.generate, plan, times=num_left))]


def _plan(config: LoopConfig, run: RunFolder, index: int, model: str) -> Plan:
    """The images of a round that start from noise."""
    prompts = round_prompts(config, index)
    seeds = range(len(prompts))
    return plan_samples(run.path, config.classes, prompts, seeds, config.generate, model=model)


def _training(config: LoopConfig, known: Sequence[str]) -> list[str]:
    new = [name for name in config.classes if name not in known]
    weights = f"new to {config.detector.base_weights.name}: {', '.join(new) or 'none'}"
    return [
        f"classes: {', '.join(config.classes)} ({weights})",
        f"fine-tuning: {config.detector.epochs} epochs per round, on the images that all rounds so far kept",
    ]


def _rounds(config: LoopConfig, num_left: int) -> list[str]:
    rounds = config.rounds
    images = "the photos" if config.model is None else f"{rounds.num_images} generated images"
    lines = [f"rounds: {num_left}, each of {images}"]
    if (varied := sum(entry.num_images for entry in rounds.variations)) > 0:
        lines.append(f"variations: up to {varied} per round from the second on (not in the estimates)")
    if config.pool is not None:
        lines.append(f"photos: those of {config.pool.folder}, labelled in every round")
    if config.labelled is not None:
        lines.append(f"labelled images: those of {config.labelled}")
    if config.evaluation is not None:
        lines.append(f"evaluation: {config.evaluation.dataset}, split {config.evaluation.split!r}, after every round")
    return lines
