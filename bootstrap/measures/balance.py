"""What the filter does to the balance of a round: kept rates by everything that the prompts vary.

A filter that keeps fewer of the night's images makes a dataset with less night in it. Each attribute of the
templates, the templates themselves and the objects' phrases get a table: how many images each value had, how many were
kept, rejected or put aside, and whether the kept rates differ by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffugen.sample import Sample

NUM_PERMUTATIONS = 1000
_Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def balance(samples: Sequence[Sample]) -> dict[str, Any]:
    """The balance of a round's generated images; photos are not drawn from templates, so they do not count.

    Returns:
        slot -> {"p_value": ..., "values": {value -> {"generated", "keep", "reject", "review", "keep_rate",
        "keep_rate_low", "keep_rate_high", "agreement"}}}. The slots are the templates' attributes, "task", "template"
        and "phrase" (an image counts for each of its phrases); those with a single value are left out.
    """
    drawn = [sample for sample in samples if not sample.is_photo]
    tables: dict[str, dict[str, list[int]]] = {}
    for index, sample in enumerate(drawn):
        for slot, value in slots_of(sample):
            rows = tables.setdefault(slot, {}).setdefault(value, [])
            if not rows or rows[-1] != index:
                rows.append(index)
    kept = np.array([sample.kept for sample in drawn], bool)
    return {
        slot: {
            "p_value": difference_p_value(list(values.values()), kept),
            "values": {value: _row([drawn[index] for index in rows]) for value, rows in sorted(values.items())},
        }
        for slot, values in tables.items()
        if len(values) > 1
    }


def slots_of(sample: Sample) -> list[tuple[str, str]]:
    """What the prompt of a sample varies: (slot, value), an empty value as "(none)"."""
    prompt = sample.prompt
    slots = [(slot, value or "(none)") for slot, value in prompt.attributes.items()]
    origin = [("task", sample.task), ("template", prompt.template)]
    return [*slots, *origin, *(("phrase", phrase.text) for phrase in prompt.objects)]


def _row(samples: Sequence[Sample]) -> dict[str, Any]:
    outcomes = {name: sum(sample.outcome == name for sample in samples) for name in ("keep", "reject", "review")}
    low, high = wilson_interval(outcomes["keep"], len(samples))
    agreements = [sample.agreement for sample in samples if sample.agreement is not None]
    return {
        "generated": len(samples),
        **outcomes,
        "keep_rate": outcomes["keep"] / len(samples),
        "keep_rate_low": low,
        "keep_rate_high": high,
        "agreement": sum(agreements) / len(agreements) if agreements else None,
    }


def wilson_interval(num_hits: int, num: int) -> tuple[float, float]:
    """The 95 % confidence interval of a rate (Wilson, 1927), fit for small numbers; `num` is at least 1."""
    rate, z2 = num_hits / num, _Z95**2 / num
    centre = (rate + z2 / 2) / (1 + z2)
    half = _Z95 * np.sqrt(rate * (1 - rate) / num + z2 / (4 * num)) / (1 + z2)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def difference_p_value(groups: Sequence[Sequence[int]], hits: np.ndarray) -> float:
    """How often chance alone would make the groups' hit rates differ as much: a permutation test.

    Its statistic is Pearson's chi-square; permuting the images keeps it valid for small groups, and for groups that
    share images.

    Args:
        groups: indices of the images of each group.
        hits: bool [n], by image.
    """
    sizes = np.array([len(rows) for rows in groups], float)
    members = np.zeros((len(groups), len(hits)))
    for number, rows in enumerate(groups):
        members[number, list(rows)] = 1
    rng = np.random.default_rng(0)
    orders = np.stack([hits, *(rng.permutation(hits) for _ in range(NUM_PERMUTATIONS))]).astype(float)
    found = members @ orders.T
    rate = hits.mean()
    statistics = ((found - sizes[:, None] * rate) ** 2 / sizes[:, None]).sum(axis=0)
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
