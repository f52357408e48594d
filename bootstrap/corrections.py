"""A person's corrections of samples, and the current labels of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bootstrap.checksums import note_finished, trouble_of
from bootstrap.run_folder import RoundFolder, RunFolder
from bootstrap.samples import one_per_photo, read_latest
from diffugen.errors import UserError, reason_of
from diffugen.files import read_json, write_json
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
    if not run.corrections.is_file():
        return {}
    if trouble := trouble_of(run, run.corrections):
        raise UserError(f"{trouble}; {_REMEDY}")
    return check_corrections(run.corrections)


def corrections_of_round(run: RunFolder, folder: RoundFolder) -> dict[str, Any]:
    """The corrections when a round planned its variations: they are copied into its folder once.

    Raises:
        UserError: the copy is damaged, and the run's corrections have changed since.
    """
    trouble = trouble_of(folder, folder.corrections)
    if not trouble and folder.corrections.is_file():
        return check_corrections(folder.corrections)
    write_json(folder.corrections, read_corrections(run))
    if not trouble:
        note_finished(folder, folder.corrections)
    elif trouble_of(folder, folder.corrections):
        folder.corrections.unlink()
        raise UserError(
            f"{trouble}, and the run's corrections have changed since; restore it from a copy, or remove "
            f"{folder.path}, which is then made again"
        )
    return check_corrections(folder.corrections)


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
            raise UserError(f"{path} is damaged (entry {name!r}: {reason_of(error)}); {_REMEDY}") from None
    return corrections
