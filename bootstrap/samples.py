"""The samples of a round as they lie in its folder: `samples.jsonl`, one record per generated image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bootstrap.disagreement import Outcome, Verdict
from bootstrap.run_folder import RoundFolder
from diffugen.files import read_jsonl, write_jsonl
from diffugen.generation.record import GeneratedRecord
from diffugen.instances import Instances

Split = Literal["train", "val", ""]


@dataclass(frozen=True)
class SampleRecord:
    """Everything about a generated image except its pixels.

    Masks stay run-length encoded until they are asked for, so that a round of thousands fits into memory.

    Attributes:
        name: unique within the run.
        source: the image's files, prompt and seed.
        labeler: whose labels `instances` are: "attention", "detector", "consensus" or "person".
        outcome, reason, agreement: see `Verdict`.
        split: "train" or "val"; empty where it is not kept.
        encoded: the JSON form of `instances`.
        encoded_labels: the JSON form of what every labeler said, before any filter.
    """

    name: str
    source: GeneratedRecord
    labeler: str
    outcome: Outcome
    reason: str
    agreement: float | None
    split: Split
    encoded: dict[str, Any]
    encoded_labels: dict[str, dict[str, Any]]

    @property
    def kept(self) -> bool:
        return self.outcome == "keep"

    @property
    def is_photo(self) -> bool:
        """Whether it is one of the pool's, not generated."""
        return self.source.task == "photo"

    @property
    def is_variation(self) -> bool:
        """Whether it was made from a kept sample of an earlier round."""
        return self.source.task in ("img2img", "inpaint")

    @property
    def class_ids(self) -> list[int]:
        return self.encoded["class_ids"]

    @property
    def instances(self) -> Instances:
        """The labels it is trained with, where it is kept."""
        return Instances.from_json(self.encoded)

    def labels(self, labeler: str) -> Instances:
        """What one labeler said, before any filter."""
        return Instances.from_json(self.encoded_labels[labeler])

    def to_json(self) -> dict[str, Any]:
        """A JSON form; file names are relative to the round's folder."""
        return {
            "name": self.name,
            **self.source.to_json(),
            "labeler": self.labeler,
            "outcome": self.outcome,
            "reason": self.reason,
            "agreement": self.agreement,
            "split": self.split,
            "instances": self.encoded,
            "labels": self.encoded_labels,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], folder: Path) -> SampleRecord:
        """The inverse of `to_json`."""
        return cls(
            **{key: value[key] for key in ("name", "labeler", "outcome", "reason", "agreement", "split")},
            source=GeneratedRecord.from_json(value, folder),
            encoded=value["instances"],
            encoded_labels=value["labels"],
        )


def make_sample(
    source: GeneratedRecord, round_index: int, verdict: Verdict, labeler: str, encoded_labels: dict[str, dict[str, Any]]
) -> SampleRecord:
    """A generated image with what was decided about it; kept ones are for training, unless set aside."""
    return SampleRecord(
        name=f"r{round_index:02d}_{source.id}",
        source=source,
        labeler=labeler,
        outcome=verdict.outcome,
        reason=verdict.reason,
        agreement=None if verdict.agreement is None else round(verdict.agreement, 6),
        split="train" if verdict.kept else "",
        encoded=verdict.instances.to_json(),
        encoded_labels=encoded_labels,
    )


def read_samples(folder: RoundFolder) -> list[SampleRecord]:
    """The samples of a labelled round, in the order in which they were generated."""
    return [SampleRecord.from_json(value, folder.path) for value in read_jsonl(folder.samples)]


def with_relabelled(samples: Sequence[SampleRecord], earlier: RoundFolder, by: RoundFolder) -> list[SampleRecord]:
    """An earlier round's samples as the round `by` judged them anew; those that it did not judge stay as they are."""
    path = by.relabelled(earlier.index)
    anew = {value["name"]: SampleRecord.from_json(value, earlier.path) for value in read_jsonl(path)}
    return [anew.get(sample.name, sample) for sample in samples]


def read_latest(folder: RoundFolder, complete: Sequence[RoundFolder]) -> list[SampleRecord]:
    """A round's samples as the latest of the complete rounds that judged them anew did; else as they were."""
    samples = read_samples(folder)
    judges = [later for later in complete if later.relabelled(folder.index).is_file()]
    return with_relabelled(samples, folder, judges[-1]) if judges else samples


def one_per_photo(samples: Iterable[SampleRecord]) -> list[SampleRecord]:
    """Of every photo of the pool, which each round labels anew, one sample: the last of a person's, else the last.

    Args:
        samples: in the order of their rounds; all others stay.
    """
    chosen: dict[str, SampleRecord] = {}
    for sample in samples:
        key = sample.source.id if sample.is_photo else sample.name
        if key not in chosen or sample.labeler == "person" or chosen[key].labeler != "person":
            chosen[key] = sample
    return list(chosen.values())


def write_samples(folder: RoundFolder, samples: Iterable[SampleRecord]) -> None:
    """Write `samples.jsonl`, atomically."""
    write_jsonl(folder.samples, (sample.to_json() for sample in samples))
