"""The record of a generated image: its files, prompt, seed, task and provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.images import read_image
from diffugen.prompts.prompt import Prompt


@dataclass(frozen=True)
class GeneratedRecord:
    """One generated image and what it was made from; pixels and heatmaps stay in their files.

    Attributes:
        id: "000000", "000001", ... in the order of the prompts.
        image_path: PNG.
        heatmap_path: npz with the heatmaps of the prompt's objects, see `ImageAttention.save`.
        prompt, seed, task: what it was generated from.
        provenance: the model and the settings.
    """

    id: str
    image_path: Path
    heatmap_path: Path
    prompt: Prompt
    seed: int
    task: str = "txt2img"
    provenance: dict[str, Any] = field(default_factory=dict)

    def image(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return read_image(self.image_path)

    def attention(self) -> ImageAttention:
        """Heatmaps, one per entry of `prompt.objects`, and what else was kept."""
        return ImageAttention.load(self.heatmap_path, [phrase.text for phrase in self.prompt.objects])

    def heatmaps(self) -> tuple[Heatmap, ...]:
        """One per entry of `prompt.objects`."""
        return self.attention().heatmaps

    def to_json(self) -> dict[str, Any]:
        """A JSON form; file names are relative to the output folder."""
        return {
            "id": self.id,
            "image": f"images/{self.image_path.name}",
            "heatmaps": f"heatmaps/{self.heatmap_path.name}",
            "prompt": self.prompt.to_json(),
            "seed": self.seed,
            "task": self.task,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], out: Path) -> GeneratedRecord:
        """The inverse of `to_json`."""
        return cls(
            id=value["id"],
            image_path=out / value["image"],
            heatmap_path=out / value["heatmaps"],
            prompt=Prompt.from_json(value["prompt"]),
            seed=value["seed"],
            task=value["task"],
            provenance=value["provenance"],
        )


def provenance_of(record: GeneratedRecord, labeler: str) -> dict[str, Any]:
    """What a dataset tells of an image and its labels: what it was made from, by which model, who labelled it.

    A photo was not made from its captions, whose words may stand for similar things only; they are told as such.
    """
    prompt = {} if record.task == "photo" else prompt_json(record.prompt)
    return {**prompt, "seed": record.seed, "task": record.task, "labeler": labeler, **record.provenance}


def prompt_json(prompt: Prompt) -> dict[str, Any]:
    """A prompt as provenance tells it: its text, and apart from it how the text is made up."""
    details = prompt.to_json()
    return {"prompt": details.pop("text"), "prompt_details": details}
