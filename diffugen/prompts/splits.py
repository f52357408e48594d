"""Seeds and splits of samples, which follow from their prompts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt


def sample_seeds(num: int, seed: int, seed_range: tuple[int, int] | None = None) -> list[int]:
    """Distinct seeds, one per sample. Sample k's does not depend on `num`.

    Args:
        num: how many.
        seed: all of them follow from it.
        seed_range: least and greatest seed; None means all of [0, 2**32).

    Raises:
        UserError: the range holds fewer seeds than samples.
    """
    low, high = seed_range or (0, 2**32 - 1)
    if num > high - low + 1:
        raise UserError(
            f"setting 'seed_range' [{low}, {high}] has {high - low + 1} seeds, but {num} images need one each; widen it"
        )
    words = np.random.SeedSequence(seed)
    length = num
    while True:
        drawn = words.generate_state(length) if seed_range is None else _drawn_within(low, high, length, words)
        seeds = list(dict.fromkeys(drawn.tolist()))[:num]  # a longer draw begins alike
        if len(seeds) == num:
            return seeds
        length += max(num - len(seeds), length // 2)


def _drawn_within(low: int, high: int, length: int, words: np.random.SeedSequence) -> np.ndarray:
    return np.random.default_rng(words).integers(low, high, length, endpoint=True)


def assign_splits(prompts: Sequence[Prompt], val_fraction: float, seed: int) -> list[str]:
    """ "train" or "val" for each prompt. Equal texts stay together, so that near-twins do not cross."""
    return split_groups([prompt.text for prompt in prompts], val_fraction, seed)


def split_groups(groups: Sequence[str], val_fraction: float, seed: int) -> list[str]:
    """ "train" or "val" for each item, given the name of its group; a group is never divided.

    The validation split gets whole groups while it stays within `val_fraction` of the items.
    """
    sizes = Counter(groups)
    val: set[str] = set()
    room = round(val_fraction * len(groups))
    for name in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()):
        if sizes[name] <= room:
            val.add(name)
            room -= sizes[name]
    return ["val" if name in val else "train" for name in groups]
