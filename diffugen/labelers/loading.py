"""Labelers of generated images as paths and settings, which any process can load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from diffugen.config.content import fingerprints
from diffugen.config.dataset import LabelModelConfig
from diffugen.config.settings import AttentionLabelConfig
from diffugen.labelers.base import Labeler


@dataclass(frozen=True)
class LabelerSettings:
    """A labeler by attention, or by a network instead.

    Attributes:
        class_names, label, score_threshold, device: see `AttentionLabeler`.
        label_model: the network; None: attention labels.
        asked: classes that prompts ask for, which a network must know.
    """

    class_names: tuple[str, ...]
    label: AttentionLabelConfig
    device: str
    score_threshold: float = 0.0
    label_model: LabelModelConfig | None = None
    asked: tuple[str, ...] = ()
    content: Any = field(init=False)
    """What identifies the files that the settings name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", fingerprints(self._values()))

    def load(self) -> Labeler:
        """Load it.

        Raises:
            UserError: a network cannot be loaded.
        """
        if self.label_model is not None:
            from diffugen.labelers.prompted import load_label_model

            return load_label_model(self.label_model, self.class_names, self.asked, self.device)
        from diffugen.labelers.attention import AttentionLabeler

        return AttentionLabeler(self.class_names, self.label, score_threshold=self.score_threshold, device=self.device)

    def identity(self) -> Any:
        """JSON of all that its labels follow from; files by their content."""
        return [self.class_names, self._values(), self.score_threshold, self.content]

    def _values(self) -> list[Any]:
        network = None if self.label_model is None else self.label_model.model_dump(mode="json")
        return [self.label.model_dump(mode="json"), network]
