"""The project's noun: an image with its labels, how both came about, and what was decided about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffugen.contained import file_inside
from diffugen.errors import UserError, reason_of
from diffugen.files import iter_jsonl, write_jsonl
from diffugen.images import read_image
from diffugen.instances import Instances
from diffugen.prompts.prompt import Prompt

EncodedInstances = dict[str, Any]
"""The JSON form of `Instances`: masks stay run-length encoded, so that thousands of samples fit into memory."""

Outcome = Literal["keep", "reject", "review"]
"""What becomes of a sample: it is trained on, it is not, or a person should look at it (and it is not until then)."""


@dataclass(frozen=True)
class Decision:
    """What the loop decided about a sample, and the evidence.

    Attributes:
        review: of a sample that is not kept: whether a person should look at it.
        agreement: mean IoU between the detector's instances and attention's, or its mirrored view's where no model
            attends (one that only one of them found counts as 0); None where there is nothing to compare.
        labels: by labeler, the instances that it found, before any filter.
    """

    review: bool = False
    agreement: float | None = None
    labels: dict[str, EncodedInstances] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """An image with its labels. Pixels and heatmaps stay in their files and masks run-length encoded until asked for.

    Attributes:
        name: unique within its run, or within its split of a dataset.
        image: its file, or uint8 RGB [H, W, 3].
        prompt: what it was generated from, or shows; its text is empty where nobody knows.
        seed: of its generator; None where it was not generated.
        task: "txt2img", "img2img", "inpaint", "photo" or, among a round's training images, "paste"; empty where only
            `provenance` may know.
        split: "train", "val" or "test"; empty where it is in none.
        encoded: its labels; None where it has none yet. Their class ids index the classes of the run or dataset.
        labeler: who labelled it, such as "attention", "detector", "consensus" or "person".
        reason: why it is not kept; empty where it is.
        provenance: what else is known about its origin: model, settings, parent image and the like.
        heatmap_path: npz of the attention to the prompt's objects, see `ImageAttention.save`; None where there is none.
        decision: what the loop decided about it; None outside a loop.
    """

    name: str
    image: Path | np.ndarray
    prompt: Prompt = Prompt("")  # noqa: RUF009 (immutable)
    seed: int | None = None
    task: str = ""
    split: str = ""
    encoded: EncodedInstances | None = None
    labeler: str = ""
    reason: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    heatmap_path: Path | None = None
    decision: Decision | None = None

    @classmethod
    def labelled(
        cls,
        name: str,
        image: Path | np.ndarray,
        instances: Instances,
        split: str,
        provenance: dict[str, Any] | None = None,
    ) -> Sample:
        """A labelled image of a dataset."""
        return cls(name, image, split=split, encoded=instances.to_json(), provenance=provenance or {})

    @property
    def image_path(self) -> Path:
        """The image's file.

        Raises:
            ValueError: it has none, only pixels.
        """
        if not isinstance(self.image, Path):
            raise ValueError(f"sample {self.name} has no image file, only pixels")
        return self.image

    def pixels(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image

    @property
    def instances(self) -> Instances:
        """Its labels, decoded.

        Raises:
            ValueError: it has none.
        """
        return self._decoded(self._labels())

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of a labelled image, pixels."""
        height, width = self._labels()["size_hw"]
        return height, width

    @property
    def class_ids(self) -> list[int]:
        """Of its labels, which it must have."""
        return self._labels()["class_ids"]

    @property
    def scores(self) -> list[float]:
        """Of its labels, which it must have."""
        return self._labels()["scores"]

    @property
    def kept(self) -> bool:
        return not self.reason

    @property
    def outcome(self) -> Outcome:
        if self.kept:
            return "keep"
        return "review" if self.decision is not None and self.decision.review else "reject"

    @property
    def agreement(self) -> float | None:
        return self.decision.agreement if self.decision else None

    @property
    def encoded_labels(self) -> dict[str, EncodedInstances]:
        """By labeler, the instances that it found before any filter; empty outside a loop."""
        return self.decision.labels if self.decision else {}

    def labels(self, labeler: str) -> Instances:
        """The instances that one labeler found, before any filter."""
        return self._decoded(self.encoded_labels[labeler])

    @property
    def is_photo(self) -> bool:
        """Whether it is a photo and not generated."""
        return self.task == "photo"

    @property
    def is_variation(self) -> bool:
        """Whether it was generated from another image."""
        return self.task in ("img2img", "inpaint")

    def origin(self) -> dict[str, Any]:
        """What a dataset records about an image and its labels: prompt, seed, task, labeler, model and so on.

        A photo was not made from its captions, whose words may stand for similar things: `provenance` lists them. What
        is pasted has no prompt either.
        """
        if not self.task:
            return self.provenance
        prompt = {} if self.is_photo or not self.prompt.is_known else self.prompt.to_provenance()
        return {**prompt, "seed": self.seed, "task": self.task, "labeler": self.labeler, **self.provenance}

    def recipe(self) -> dict[str, Any]:
        """What the image was generated from, in a JSON form: images of one recipe are the same."""
        return {
            "image": f"images/{self.image_path.name}",
            "heatmaps": None if self.heatmap_path is None else f"heatmaps/{self.heatmap_path.name}",
            "prompt": self.prompt.to_json(),
            "seed": self.seed,
            "task": self.task,
            "provenance": self.provenance,
        }

    def to_json(self) -> dict[str, Any]:
        """A line of `samples.jsonl`; file names are relative to the folder with images/ and heatmaps/."""
        line = {
            "name": self.name,
            **self.recipe(),
            "labeler": self.labeler,
            "kept": self.kept,
            "reason": self.reason,
            "split": self.split,
            "instances": self.encoded,
        }
        if self.decision is None:
            return line
        return line | {"outcome": self.outcome, "agreement": self.agreement, "labels": self.encoded_labels}

    @classmethod
    def from_json(cls, value: dict[str, Any], folder: Path) -> Sample:
        """The inverse of `to_json`; lines that diffugen 0.1 wrote are read too.

        Raises:
            ValueError: its name or files would lie outside `folder`, or what was decided about has no labels.
        """
        decision = None
        if "outcome" in value:
            if not isinstance(value["instances"], dict):
                raise ValueError("no labels")
            decision = Decision(value["outcome"] == "review", value["agreement"], value["labels"])
        return cls(
            name=_plain_name(value["name"] if "name" in value else value["id"]),
            image=file_inside(folder, value["image"]),
            prompt=Prompt.from_json(value["prompt"]),
            seed=value["seed"],
            task=value["task"],
            split=value.get("split", ""),
            encoded=value.get("instances"),
            labeler=value.get("labeler", ""),
            reason=value.get("reason", ""),
            provenance=value["provenance"],
            heatmap_path=file_inside(folder, value["heatmaps"]) if value["heatmaps"] else None,
            decision=decision,
        )

    def _decoded(self, encoded: EncodedInstances) -> Instances:
        try:
            return Instances.from_json(encoded)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the labels of sample {self.name} ({self.image}) are damaged ({reason_of(error)}); restore its "
                "samples.jsonl from a copy"
            ) from None

    def _labels(self) -> EncodedInstances:
        if self.encoded is None:
            raise ValueError(f"sample {self.name} ({self.image}) is not labelled")
        return self.encoded


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a `samples.jsonl`, atomically; it lies in the folder that has their images/ and heatmaps/."""
    write_jsonl(path, (sample.to_json() for sample in samples))


def read_samples(path: Path, folder: Path | None = None) -> list[Sample]:
    """Read a `samples.jsonl`; their files lie in `folder`, by default its own.

    Raises:
        UserError: a line is no sample, or names a file outside the folder.
    """
    return list(iter_samples(path, folder))


def iter_samples(path: Path, folder: Path | None = None) -> Iterator[Sample]:
    """Like `read_samples`, one sample at a time."""
    for number, value in enumerate(iter_jsonl(path), start=1):
        try:
            sample = Sample.from_json(value, folder or path.parent)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            trouble = reason_of(error)
            raise UserError(
                f"{path} is damaged (line {number}: {trouble}); restore it from a copy, or remove its folder"
            ) from None
        yield sample


def _plain_name(name: Any) -> str:
    """The name of a sample, which files are named after."""
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{name!r} is no name of a sample")
    return name
