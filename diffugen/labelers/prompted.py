"""Labels of generated images from a trained network, whose classes may be coarser than the dataset's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.class_maps import shown
from diffugen.config.dataset import LabelModelConfig
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.base import Labeler, LabelInput
from diffugen.labelers.detector import DetectorLabeler
from diffugen.labelers.mask2former import Mask2FormerLabeler
from diffugen.prompts.prompt import Prompt


class PromptedLabeler:
    """A network's labels, renamed to the dataset's classes; what has no such class is dropped.

    Several of these may share one class of the network (sedan and suv: car). An object is then what the image's prompt
    asks for; else what is called as the network calls it; else the first.

    Args:
        labeler: its class ids index `model_names`.
        model_names: the network's classes.
        class_names: the dataset's; those that the network has under no name are never found.
        class_map: class of the dataset -> the network's names for it; equal names need no entry.
    """

    def __init__(
        self,
        labeler: Labeler,
        model_names: Sequence[str],
        class_names: Sequence[str],
        class_map: Mapping[str, Sequence[str]],
    ) -> None:
        self.name = labeler.name
        self.labeler = labeler
        self.class_names = list(class_names)
        self.options = [
            sorted((own for own in class_names if name in class_map.get(own, (own,))), key=name.__ne__)
            for name in model_names
        ]

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, in their order."""
        found = self.labeler.label(inputs)
        return [self._renamed(instances, item.prompt) for instances, item in zip(found, inputs, strict=True)]

    def _renamed(self, instances: Instances, prompt: Prompt | None) -> Instances:
        asked = {phrase.class_name for phrase in prompt.objects} if prompt else set()
        kept = instances.subset(np.array([bool(self.options[class_id]) for class_id in instances.class_ids], bool))
        chosen = [min(self.options[class_id], key=lambda name: name not in asked) for class_id in kept.class_ids]
        return replace(kept, class_ids=np.array([self.class_names.index(name) for name in chosen], np.int64))


def load_label_model(
    config: LabelModelConfig, class_names: Sequence[str], asked: Sequence[str], device: str
) -> PromptedLabeler:
    """Load the network that labels.

    Args:
        config: which, and how its classes are called.
        class_names: the dataset's classes.
        asked: those of them that prompts ask for.
        device: "auto", "cpu", "cuda:0".

    Raises:
        UserError: there is no such network, or it cannot find what prompts ask for.
    """
    labeler = _network(config, device)
    known = labeler.class_names
    for name in asked:
        for their in config.class_map.get(name, (name,)):
            if their not in known:
                raise UserError(
                    f"setting 'label_model.class_map': {config.weights} has no class {their!r}, but prompts ask for "
                    f"{name!r}; name one that it has ({shown(known)}), or leave label_model out to label by attention"
                )
    return PromptedLabeler(labeler, known, class_names, config.class_map)


def _network(config: LabelModelConfig, device: str) -> DetectorLabeler | Mask2FormerLabeler:
    """The network as a labeler of all that it knows."""
    options: dict[str, Any] = {"device": device}
    if config.score_threshold is not None:
        options["score_threshold"] = config.score_threshold
    if config.kind == "mask2former":
        return Mask2FormerLabeler(config.weights, **options)
    return DetectorLabeler(Path(config.weights), imgsz=config.imgsz, **options)
