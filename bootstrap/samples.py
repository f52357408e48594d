"""The samples of the rounds, as `samples.jsonl` and later decisions about them say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bootstrap.disagreement import Judgement
from bootstrap.run_folder import RoundFolder
from diffugen.sample import Decision, EncodedInstances, Sample, read_samples


def decided(sample: Sample, judgement: Judgement, labeler: str, labels: dict[str, EncodedInstances]) -> Sample:
    """A sample with what was decided about it; kept ones are for training, unless they are set aside later.

    Args:
        sample: as it was generated.
        judgement: the decision, and the labels it is trained with.
        labeler: whose labels these are.
        labels: by labeler, what was found before any filter.
    """
    agreement = None if judgement.agreement is None else round(judgement.agreement, 6)
    return replace(
        sample,
        split="train" if judgement.kept else "",
        encoded=judgement.instances.to_json(),
        labeler=labeler,
        reason=judgement.reason,
        decision=Decision(judgement.outcome == "review", agreement, labels),
    )


def with_relabelled(samples: Sequence[Sample], earlier: RoundFolder, by: RoundFolder) -> list[Sample]:
    """An earlier round's samples as the round `by` re-labelled them; those that it left alone stay as they are."""
    changed = {sample.name: sample for sample in read_samples(by.relabelled(earlier.index), earlier.path)}
    return [changed.get(sample.name, sample) for sample in samples]


def read_latest(folder: RoundFolder, complete: Sequence[RoundFolder]) -> list[Sample]:
    """A round's samples as the latest of the complete rounds that re-labelled them did; else as they were."""
    samples = read_samples(folder.samples)
    judges = [later for later in complete if later.relabelled(folder.index).is_file()]
    return with_relabelled(samples, folder, judges[-1]) if judges else samples


def one_per_photo(samples: Iterable[Sample]) -> list[Sample]:
    """Of every photo of the pool, which each round re-labels, one sample: a person's last one, else the last.

    Args:
        samples: in the order of their rounds; all others stay.
    """
    chosen: dict[str, Sample] = {}
    for sample in samples:
        key = sample.image_path.stem if sample.is_photo else sample.name
        if key not in chosen or sample.labeler == "person" or chosen[key].labeler != "person":
            chosen[key] = sample
    return list(chosen.values())
