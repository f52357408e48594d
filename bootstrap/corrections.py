"""A person's corrections of samples, and the current labels of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bootstrap.run_folder import RunFolder
from bootstrap.samples import one_per_photo, read_latest
from diffugen.errors import UserError
from diffugen.files import read_json
from diffugen.instances import Instances
from diffugen.sample import Sample

_REMEDY = "restore it from a copy, or remove it and import Label Studio's export again"


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
    """By sample, the labels that a person gave it, in their JSON form.

    Raises:
        UserError: the file is damaged, or an entry has no labels.
    """
    return check_corrections(run.corrections) if run.corrections.is_file() else {}


def check_corrections(path: Path) -> dict[str, Any]:
    """Read a file of corrections; every entry must have labels that can be decoded."""
    corrections = read_json(path)
    if not isinstance(corrections, dict):
        raise UserError(f"{path} is damaged (no entries by sample); {_REMEDY}")
    for name, encoded in corrections.items():
        try:
            if min(Instances.from_json(encoded).class_ids, default=0) < 0:
                raise ValueError("a class below 0")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged (entry {name!r}: {error}); {_REMEDY}") from None
    return corrections
