"""What is decided per prompt: shares, seeds and splits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt, plain_words
from diffugen.prompts.splits import assign_splits, sample_seeds, split_groups
from diffugen.prompts.templates import largest_remainder


@pytest.mark.parametrize(
    ("weights", "num", "expected"),
    [
        ([1, 1], 4, [2, 2]),
        ([3, 1], 8, [6, 2]),
        ([1, 1, 1], 10, [4, 3, 3]),
        ([0.6, 0.2, 0.2], 10, [6, 2, 2]),
        ([0.7, 0.2, 0.1], 10, [7, 2, 1]),
        ([1, 2], 0, [0, 0]),
        ([1000, 1], 3, [3, 0]),
    ],
)
def test_largest_remainder(weights: list[float], num: int, expected: list[int]) -> None:
    assert largest_remainder(weights, num) == expected


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.integers(0, 500))
def test_shares_are_exact_to_one(weights: list[float], num: int) -> None:
    counts = largest_remainder(weights, num)
    assert sum(counts) == num
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - weight / sum(weights) * num) < 1 + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**63))
def test_seeds_are_distinct_and_do_not_depend_on_their_number(few: int, many: int, seed: int) -> None:
    few, many = sorted((few, many))
    seeds = sample_seeds(many, seed)
    assert sample_seeds(few, seed) == seeds[:few]
    assert len(set(seeds)) == many
    assert all(0 <= value < 2**32 for value in seeds)


def test_seeds_stay_distinct_where_random_numbers_repeat() -> None:
    """Among 300,000 of 2**32 numbers about ten are drawn twice."""
    seeds = sample_seeds(300_000, seed=0)
    assert len(set(seeds)) == 300_000


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60), st.floats(0, 0.9), st.integers(0, 100))
def test_equal_prompts_stay_in_one_split(texts: list[str], val_fraction: float, seed: int) -> None:
    splits = assign_splits([Prompt(text=text) for text in texts], val_fraction, seed)
    assert all(len({split for text, split in zip(texts, splits, strict=True) if text == name}) == 1 for name in texts)
    assert splits.count("val") <= round(val_fraction * len(texts))


def test_different_prompts_fill_the_validation_split() -> None:
    prompts = [Prompt(text=str(number)) for number in range(50)]
    assert assign_splits(prompts, 0.2, seed=0).count("val") == 10
    assert assign_splits(prompts, 0.2, seed=0) != assign_splits(prompts, 0.2, seed=1)
    assert "val" not in assign_splits(prompts, 0.0, seed=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**32), st.integers(0, 2**40))
def test_seeds_of_a_range_lie_in_it(few: int, many: int, low: int, seed: int) -> None:
    few, many = sorted((few, many))
    seeds = sample_seeds(many, seed, (low, low + 49))
    assert len(set(seeds)) == many
    assert all(low <= value <= low + 49 for value in seeds)
    assert sample_seeds(few, seed, (low, low + 49)) == seeds[:few]


def test_a_range_with_too_few_seeds_is_an_error() -> None:
    with pytest.raises(UserError, match=r"'seed_range' \[5, 7\] has 3 seeds, but 4 images need one each; widen it"):
        sample_seeds(4, 0, (5, 7))


def test_a_group_is_never_divided() -> None:
    groups = [name for name in "abcdefghij" for _ in range(3)]
    splits = split_groups(groups, 0.3, seed=2)
    assert splits.count("val") == 9
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 30, 3))


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        (["red car", "blue car"], "car"),
        (["red <grand-piano>", "a big blue <grand-piano>"], "<grand-piano>"),
        (["old steam engine", "steam engine"], "steam engine"),
        (["racing car"], "racing car"),
        (["automobile", "red car"], "automobile"),
    ],
)
def test_the_plain_words_of_a_class_are_what_its_phrases_share(phrases: list[str], words: str) -> None:
    assert plain_words(phrases) == words
