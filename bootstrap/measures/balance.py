"""What the filter does to the balance of a round: kept rates by everything that the prompts vary.

A filter that keeps fewer of the night's images makes a dataset with less night in it. Each attribute of the
templates, the templates themselves and the objects' phrases get a table: how many images each value had, how many were
kept, rejected or put aside, and whether the kept rates differ by more than chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffugen.sample import Sample

NUM_PERMUTATIONS = 1000
_Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass
class _Tally:
    """What became of images."""

    outcomes: Counter[str] = field(default_factory=Counter)
    agreement: float = 0.0
    """Sum over the images that have one."""
    num_agreements: int = 0

    def add(self, sample: Sample) -> None:
        self.outcomes[sample.outcome] += 1
        if sample.agreement is not None:
            self.agreement += sample.agreement
            self.num_agreements += 1


def balance(samples: Iterable[Sample]) -> dict[str, Any]:
    """The balance of a round's generated images; photos are not drawn from templates, so they do not count.

    Returns:
        slot -> {"p_value": ..., "values": {value -> {"generated", "keep", "reject", "review", "keep_rate",
        "keep_rate_low", "keep_rate_high", "agreement"}}}. The slots are the templates' attributes, "task", "template"
        and "phrase" (an image counts for each of its phrases); those with a single value are left out.
    """
    everything = _Tally()
    slots: dict[str, dict[frozenset[str], _Tally]] = {}
    for sample in samples:
        if sample.is_photo:
            continue
        everything.add(sample)
        values: dict[str, set[str]] = {}
        for slot, value in slots_of(sample):
            values.setdefault(slot, set()).add(value)
        for slot, found in values.items():
            slots.setdefault(slot, {}).setdefault(frozenset(found), _Tally()).add(sample)
    return {slot: _table(cells, everything) for slot, cells in slots.items() if len(frozenset().union(*cells)) > 1}


def _table(cells: Mapping[frozenset[str], _Tally], everything: _Tally) -> dict[str, Any]:
    """One slot's; a cell is the images of the same values."""
    names = sorted(frozenset().union(*cells))
    counts = np.array([[tally.outcomes.total(), tally.outcomes["keep"]] for tally in cells.values()])
    others = [everything.outcomes.total(), everything.outcomes["keep"]] - counts.sum(axis=0)  # do not have the slot
    members = np.array([[*(name in cell for cell in cells), False] for name in names])
    return {
        "p_value": difference_p_value(members, *np.vstack([counts, others]).T),
        "values": {name: _row([tally for cell, tally in cells.items() if name in cell]) for name in names},
    }


def slots_of(sample: Sample) -> list[tuple[str, str]]:
    """What the prompt of a sample varies: (slot, value), an empty value as "(none)"."""
    prompt = sample.prompt
    slots = [(slot, value or "(none)") for slot, value in prompt.attributes.items()]
    origin = [("task", sample.task), ("template", prompt.template)]
    return [*slots, *origin, *(("phrase", phrase.text) for phrase in prompt.objects)]


def _row(tallies: Sequence[_Tally]) -> dict[str, Any]:
    outcomes = {name: sum(tally.outcomes[name] for tally in tallies) for name in ("keep", "reject", "review")}
    num, num_agreements = sum(outcomes.values()), sum(tally.num_agreements for tally in tallies)
    low, high = wilson_interval(outcomes["keep"], num)
    return {
        "generated": num,
        **outcomes,
        "keep_rate": outcomes["keep"] / num,
        "keep_rate_low": low,
        "keep_rate_high": high,
        "agreement": sum(tally.agreement for tally in tallies) / num_agreements if num_agreements else None,
    }


def wilson_interval(num_hits: int, num: int) -> tuple[float, float]:
    """The 95 % confidence interval of a rate (Wilson, 1927), fit for small numbers; `num` is at least 1."""
    rate, z2 = num_hits / num, _Z95**2 / num
    centre = (rate + z2 / 2) / (1 + z2)
    half = _Z95 * np.sqrt(rate * (1 - rate) / num + z2 / (4 * num)) / (1 + z2)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def difference_p_value(members: np.ndarray, sizes: np.ndarray, kept: np.ndarray) -> float:
    """How often chance alone would make the groups' kept rates differ as much: a permutation test.

    Its statistic is Pearson's chi-square; permuting the images keeps it valid for small groups, and for groups that
    share images. How many of each cell a permutation keeps is drawn at once, so that it takes no time per image.

    Args:
        members: bool [groups, cells]: the cells of each group; no two cells share images.
        sizes: int [cells]: images of each cell.
        kept: int [cells]: how many of them were kept.
    """
    num = kept.sum()
    drawn = np.random.default_rng(0).multivariate_hypergeometric(sizes, num, NUM_PERMUTATIONS, method="marginals")
    found = members @ np.vstack([kept, drawn]).T
    expected = (members @ sizes)[:, None] * num / sizes.sum()
    statistics = ((found - expected) ** 2 / (members @ sizes)[:, None]).sum(axis=0)
    as_large = statistics[1:] >= statistics[0] - 1e-9
    return float((1 + as_large.sum()) / (1 + NUM_PERMUTATIONS))


def discriminated(tables: Mapping[str, Any], max_p_value: float = 0.05) -> list[tuple[str, str, int, int, float]]:
    """Values that the filter keeps less often than their slot's other values, where these differ by more than chance.

    Returns:
        (slot, value, its kept images, its images, the kept rate of all images of the slot), the largest difference
        first.
    """
    found = []
    for slot, table in tables.items():
        rows = table["values"].values()
        rate = sum(row["keep"] for row in rows) / sum(row["generated"] for row in rows)
        for value, row in table["values"].items():
            if table["p_value"] < max_p_value and row["keep_rate_high"] < rate:
                found.append((slot, value, row["keep"], row["generated"], rate))
    return sorted(found, key=lambda item: item[2] / item[3] - item[4])
