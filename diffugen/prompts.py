"""Prompts, what is decided per prompt (seeds and splits), and the plain words of classes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from diffugen.config import ConfigError, PromptsConfig
from diffugen.prompt_rules import SLOT


@dataclass(frozen=True)
class ObjectPhrase:
    """One object that a prompt asks for: its words as they stand in it, and the class of their labels."""

    text: str
    class_name: str


@dataclass(frozen=True)
class Prompt:
    """What an image is generated from.

    Attributes:
        text: the whole prompt.
        objects: the objects it asks for, in the order of the text; one entry per expected instance.
        attributes: the value of every attribute slot of the template.
        template: the template it came from.
        negative_text: the negative prompt.
    """

    text: str
    objects: tuple[ObjectPhrase, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    template: str = ""
    negative_text: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Prompt:
        """The inverse of `to_json`."""
        return cls(**{**value, "objects": tuple(ObjectPhrase(**phrase) for phrase in value["objects"])})


def fill_template(
    template: str, objects: Sequence[ObjectPhrase], attributes: Mapping[str, str], negative_text: str = ""
) -> Prompt:
    """The prompt of a template: attribute slots are filled by name, all others by the objects in their order.

    An empty value leaves no gap; the objects' words stay exactly as they are.
    """
    phrases = iter(objects)
    written = SLOT.sub(lambda match: attributes.get(match[1], match[0]), template)
    if "" in attributes.values():
        written = without_gaps(written)
    written = SLOT.sub(lambda match: next(phrases).text, " ".join(written.split()))
    return Prompt(
        text=written,
        objects=tuple(objects),
        attributes={slot: attributes[slot] for slot in dict.fromkeys(SLOT.findall(template)) if slot in attributes},
        template=template,
        negative_text=negative_text,
    )


def sample_seeds(num: int, seed: int, seed_range: tuple[int, int] | None = None) -> list[int]:
    """Distinct seeds, one per sample. Sample k's does not depend on `num`.

    Args:
        num: how many.
        seed: all of them follow from it.
        seed_range: least and greatest seed; None means all of [0, 2**32).

    Raises:
        ConfigError: the range holds fewer seeds than samples.
    """
    low, high = seed_range or (0, 2**32 - 1)
    if num > high - low + 1:
        raise ConfigError(
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


def largest_remainder(weights: Sequence[float], num: int) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `num` (Hamilton's method; ties to the first)."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * num
    counts = np.floor(exact + 1e-9).astype(int)  # 0.3 / 1.0 * 10 is a little less than 3
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: num - counts.sum()]] += 1
    return counts.tolist()


def class_words(config: PromptsConfig) -> dict[str, str]:
    """What to call each class in a plain caption, see `plain_words`."""
    phrases: dict[str, list[str]] = {}
    for classes in config.objects.values():
        for name, texts in classes.items():
            phrases.setdefault(name, []).extend(texts)
    return {name: plain_words(texts) for name, texts in phrases.items()}


def plain_words(phrases: Sequence[str]) -> str:
    """What phrases of one class have in common at their end ("red car", "blue car": "car"), else the first of them."""
    columns = zip(*(reversed(phrase.split()) for phrase in phrases), strict=False)
    common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return " ".join(reversed(common)) or phrases[0]


def without_gaps(text: str) -> str:
    """Close what an empty value leaves behind: spaces before commas, commas in a row or at the ends."""
    text = re.sub(r"\s+([,;.])", r"\1", text)
    return re.sub(r"([,;])(\s*[,;])+", r"\1", text).strip(" ,;")
