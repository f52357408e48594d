"""The index of a diffusers pipeline names what is imported: classes of diffusers and transformers only."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import diffusers
import transformers

from diffugen.errors import UserError

_LIBRARIES = ("diffusers", "transformers")
_KINDS = {
    "ModelMixin",
    "SchedulerMixin",
    "PreTrainedModel",
    "PreTrainedTokenizerBase",
    "ImageProcessingMixin",
    "FeatureExtractionMixin",
}
"""Base classes of what a pipeline is made of; what reads further names from files (Auto..., pipelines) is not in it."""


def check_model_index(index: Mapping[str, Any], place: str) -> None:
    """Check a model_index.json before anything that it names is imported.

    Raises:
        UserError: its pipeline or a part is no class of diffusers or transformers, or may fetch further models.
    """
    name = index.get("_class_name")
    pipeline = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not _is_of(pipeline, ("diffusers",), {"DiffusionPipeline"}) or getattr(pipeline, "_load_connected_pipes", True):
        raise UserError(
            f"{place} names {name!r}, which is no pipeline of diffusers that stands alone; give one that is"
        )
    for part, value in index.items():
        if isinstance(value, list) and not part.startswith("_") and any(entry is not None for entry in value):
            _check_part(part, value, place)


def _check_part(part: str, value: list[Any], place: str) -> None:
    library, name = value if len(value) == 2 else (None, None)
    if isinstance(library, str) and isinstance(name, str):
        module = _module(library)
        found = getattr(module, name, None)
        if module is not None and (found is None or _is_of(found, _LIBRARIES, _KINDS)):
            return  # a missing class is reported when it is loaded; some old names are mapped to new ones then
    raise UserError(
        f"{place} names {value} for {part!r}; only models, schedulers, tokenizers and image processors of diffusers "
        "and transformers are loaded, give a model that needs nothing else"
    )


def _module(library: str) -> ModuleType | None:
    if library in _LIBRARIES:
        return transformers if library == "transformers" else diffusers
    own = getattr(diffusers.pipelines, library, None)  # such as stable_diffusion, of the safety checker
    is_own = isinstance(own, ModuleType) and own.__name__.startswith("diffusers.pipelines.")
    return own if is_own else None


def _is_of(found: Any, libraries: tuple[str, ...], kinds: set[str]) -> bool:
    """Whether it is a class of these libraries' own, of one of these kinds."""
    if not isinstance(found, type) or found.__module__.split(".")[0] not in libraries:
        return False
    return not kinds.isdisjoint(base.__name__ for base in found.__mro__)
