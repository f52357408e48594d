"""A person's corrections of samples, and the current labels of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bootstrap.run_folder import RunFolder
from bootstrap.samples import one_per_photo, read_latest
from diffugen.files import read_json
from diffugen.sample import Sample


def with_corrections(samples: Sequence[Sample], corrections: Mapping[str, Any]) -> list[Sample]:
    """Samples with the labels that a person gave them: these are kept, whatever the filter decided.

    The frozen validation split stays as it is, or checkpoints could not be compared.
    """
    return [
        replace(sample, encoded=corrections[sample.name], labeler="person", reason="", split="train")
        if sample.name in corrections and sample.split != "val"
        else sample
        for sample in samples
    ]


def latest_samples(run: RunFolder, corrections: Mapping[str, Any]) -> list[Sample]:
    """The samples of all complete rounds with their current labels: a person's, else those of the latest complete round
    that labelled them."""
    complete = run.complete_rounds()
    return one_per_photo(
        sample for folder in complete for sample in with_corrections(read_latest(folder, complete), corrections)
    )


def read_corrections(run: RunFolder) -> dict[str, Any]:
    """By sample, the labels that a person gave it, in their JSON form."""
    return read_json(run.corrections) if run.corrections.is_file() else {}
