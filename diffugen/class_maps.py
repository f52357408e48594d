"""From the classes that a model knows to those of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from diffugen.errors import UserError

if TYPE_CHECKING:
    from diffugen.instances import Instances


def by_their_names(class_map: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The class maps of configs (class -> a model's names for it) as the functions here take them."""
    return {their: own for own, names in class_map.items() for their in names}


_NUM_SHOWN = 10  # class names in a message; COCO has 80


def class_index(
    model_names: Mapping[int, str], class_names: Sequence[str], class_map: Mapping[str, str] | None = None
) -> dict[int, int]:
    """From the model's class ids to positions in `class_names`; classes that lead nowhere are not in it.

    Args:
        model_names: the model's class ids and names.
        class_names: the dataset's.
        class_map: from the model's names to `class_names`, many to one; names that are not in it keep their own.

    Raises:
        UserError: the map names a class that one of the two sides does not have.
    """
    class_map = class_map or {}
    for source, target in class_map.items():
        if target not in class_names:
            raise UserError(f"class_map: {target!r} is none of the classes {shown(class_names)}; correct or add it")
        if source not in model_names.values():
            raise UserError(f"class_map: the model has no class {source!r}; it has {shown(list(model_names.values()))}")
    mapped = {i: class_map.get(name, name) for i, name in model_names.items()}
    return {i: class_names.index(name) for i, name in mapped.items() if name in class_names}


def parse_class_map(entries: Sequence[str]) -> dict[str, str]:
    """The map that a command line writes as `MODEL=DATASET`, such as `truck=car`.

    Raises:
        UserError: an entry has another form, or a class of the model comes twice.
    """
    class_map: dict[str, str] = {}
    for entry in entries:
        source, equals, target = (part.strip() for part in entry.partition("="))
        if not (source and equals and target):
            raise UserError(f"--map {entry!r} is not of the form MODEL_CLASS=DATASET_CLASS")
        if source in class_map:
            raise UserError(f"--map gives the class {source!r} twice; a model's class can become only one")
        class_map[source] = target
    return class_map


def mapped_classes(
    model_names: Mapping[int, str], wanted: Sequence[str] | None, class_map: Mapping[str, str], model: str
) -> list[str]:
    """The dataset's classes: those wanted; else, with a map, its targets; else all that the model knows.

    Args:
        model_names: the model's class ids and names.
        wanted: names to look for, in this order.
        class_map: from the model's names to the dataset's.
        model: what to call it in a message.

    Raises:
        UserError: neither the model nor the map has a wanted class.
    """
    known = [model_names[index] for index in sorted(model_names)]
    reachable = {name for name in known if name not in class_map} | set(class_map.values())
    for name in wanted or ():
        if name not in reachable:
            raise UserError(f"--classes: {model} does not know {name!r}; its classes are {shown(known)}")
    return list(wanted or dict.fromkeys(class_map.values()) or known)


def shown(names: Sequence[str]) -> str:
    """Class names for a message: the first ten."""
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")


def renumbered(instances: Instances, old_names: Sequence[str], new_names: Sequence[str]) -> Instances:
    """The instances whose class is in `new_names`, their class ids indexing those."""
    if len(instances) and instances.class_ids.max() >= len(old_names):
        raise UserError(
            f"class id {instances.class_ids.max()} has no name among the {len(old_names)} classes; correct it, or add "
            "the name"
        )
    index = {i: new_names.index(name) for i, name in enumerate(old_names) if name in new_names}
    import numpy as np  # the command line reads class maps, and should start at once

    kept = instances.subset(np.array([class_id in index for class_id in instances.class_ids], bool))
    class_ids = np.array([index[class_id] for class_id in kept.class_ids], np.int64)
    return replace(kept, class_ids=class_ids)
