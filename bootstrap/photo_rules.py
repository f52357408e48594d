"""What a loop must and may have with a diffusion model, and without one, where its images are photographs alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diffugen.config.errors import SettingError
from diffugen.config.prompt_rules import SLOT
from diffugen.config.settings import GenerateConfig

if TYPE_CHECKING:
    from bootstrap.config import LoopConfig


def model_mistakes(config: LoopConfig) -> Iterator[SettingError]:
    """Settings that are missing or idle, depending on whether there is a model."""
    yield from _needed_by_model(config) if config.model is not None else _without_model(config)


def model_missing(needed_by: str) -> SettingError:
    """That there is no model, although a setting needs one."""
    return SettingError("model", f"is missing, but {needed_by!r} needs one; add it, or remove {needed_by!r}")


def _needed_by_model(config: LoopConfig) -> Iterator[SettingError]:
    if config.pool is not None:
        if not config.pool.captions:
            yield SettingError("pool.captions", "is missing; say what the photos show, the model reads them by it")
        if not config.pool.objects:
            yield SettingError("pool.objects", "is missing; give each class its phrases of pool.captions")
        if config.pool.sam3 is not None:
            yield SettingError("pool.sam3", "is for a loop without a diffusion model; remove it, attention labels here")
        twice = len({*config.classes}) < len(config.classes)  # which is said elsewhere, and would be said twice
        if config.pool.pasted and not twice and not _draws_without_rare(config):
            yield SettingError(
                "pool.pasted",
                "needs generated images without a rare object, but all of prompts.templates ask for one; add a "
                "template without it, or set pool.pasted to 0",
            )


def _draws_without_rare(config: LoopConfig) -> bool:
    """Whether some template may be filled without a rare object."""
    if config.prompts is None:
        return False
    always_rare = {slot for slot, names in config.prompts.objects.items() if set(names) <= set(config.rare_classes)}
    return any(not always_rare & set(SLOT.findall(template.text)) for template in config.prompts.templates)


def _without_model(config: LoopConfig) -> Iterator[SettingError]:
    pool, rounds = config.pool, config.rounds
    drawing = {
        "prompts": config.prompts is not None,
        "generate": config.generate != GenerateConfig(),
        "rounds.variations": bool(rounds.variations),
    }
    if needed_by := next((name for name, given in drawing.items() if given), ""):
        yield model_missing(needed_by)
    elif pool is None:
        yield SettingError("model", "is missing; add it to the config, or give photos to learn from as 'pool'")
    if pool is not None and pool.sam3 is not None and config.labelled is not None:
        yield SettingError("pool.sam3", "would not be asked, as 'labelled' begins the loop; remove one of them")
    idle = {
        "pool.captions": pool is not None and bool(pool.captions),
        "pool.objects": pool is not None and bool(pool.objects) and pool.sam3 is None,
        "pool.presence": pool is not None and not pool.presence,
        "pool.pasted": pool is not None and bool(pool.pasted),
        "rounds.filter.by": rounds.filter.by == "attention",
    }
    for name in (name for name, given in idle.items() if given and pool is not None):
        yield SettingError(name, "is for a loop with a diffusion model; remove it, or add 'model'")
