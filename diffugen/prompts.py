"""Prompts, and the templates they are made from."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from diffugen.config import PromptsConfig
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


Choice = tuple[str, str]
"""What fills a slot once: (class name, phrase), or ("", value) for an attribute."""


def sample_prompts(config: PromptsConfig, num: int, seed: int) -> list[Prompt]:
    """Fill the templates' slots.

    Each template gets its share of `num` by weight, exact to one prompt (largest remainder), and so does each
    value of a weighted attribute within its template. All other choices are balanced: the class, phrase or
    value that was drawn least comes next, ties by chance. No combination of them comes twice from one
    template (and with the same weighted values) before all have come once.

    Args:
        config: templates and what fills their slots.
        num: how many prompts.
        seed: of the choices and the order.
    """
    rng = np.random.default_rng(seed)
    shares = largest_remainder([template.weight for template in config.templates], num)
    used: Counter[tuple[str, str]] = Counter()  # (slot, class or phrase or value) -> times, in all templates
    prompts = [
        prompt
        for template, share in zip(config.templates, shares, strict=True)
        for prompt in _fill_template(template.text, config, share, used, rng)
    ]
    return [prompts[i] for i in rng.permutation(num)]


def sample_seeds(num: int, seed: int) -> list[int]:
    """Distinct seeds in [0, 2**32), one per sample. Sample k's does not depend on `num`."""
    length = num
    while True:
        words = np.random.SeedSequence(seed).generate_state(length)  # a longer one begins alike
        seeds = list(dict.fromkeys(words.tolist()))[:num]
        if len(seeds) == num:
            return seeds
        length += num - len(seeds)


def assign_splits(prompts: Sequence[Prompt], val_fraction: float, seed: int) -> list[str]:
    """ "train" or "val" for each prompt. Equal texts stay together, so that near-twins do not cross.

    The validation split gets whole groups of equal texts while it stays within `val_fraction` of the prompts.
    """
    sizes = Counter(prompt.text for prompt in prompts)
    val: set[str] = set()
    room = round(val_fraction * len(prompts))
    for text in sorted(sizes, key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest()):
        if sizes[text] <= room:
            val.add(text)
            room -= sizes[text]
    return ["val" if prompt.text in val else "train" for prompt in prompts]


def largest_remainder(weights: Sequence[float], num: int) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `num` (Hamilton's method; ties to the first)."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * num
    counts = np.floor(exact + 1e-9).astype(int)  # 0.3 / 1.0 * 10 is a little less than 3
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: num - counts.sum()]] += 1
    return counts.tolist()


def _fill_template(
    text: str, config: PromptsConfig, num: int, used: Counter[tuple[str, str]], rng: np.random.Generator
) -> list[Prompt]:
    slots = list(SLOT.findall(text))
    weighted = [slot for slot in dict.fromkeys(slots) if _is_weighted(config.attributes.get(slot, ()))]
    plain = [slot for slot in dict.fromkeys(slots) if slot in config.attributes and slot not in weighted]
    free = [slot for slot in slots if slot in config.objects] + plain
    decks = {slot: _deck(config.attributes[slot], num, rng) for slot in weighted}  # type: ignore[arg-type]
    drawn: dict[tuple[str, ...], set[tuple[Choice, ...]]] = {}  # by the weighted values: these keep their share
    prompts = []
    for number in range(num):
        values = {slot: deck[number] for slot, deck in decks.items()}
        before = drawn.setdefault(tuple(values.values()), set())
        fill = _next_fill(free, config, before, used, rng)
        num_objects = len(free) - len(plain)
        values |= {slot: value for slot, (_, value) in zip(plain, fill[num_objects:], strict=True)}
        prompts.append(_write(text, fill[:num_objects], values, config))
    return prompts


def _is_weighted(values: Any) -> bool:
    """Equal weights are no weights."""
    return isinstance(values, Mapping) and len(set(values.values())) > 1


def _deck(weights: Mapping[str, float], num: int, rng: np.random.Generator) -> list[str]:
    counts = largest_remainder(list(weights.values()), num)
    deck = [value for value, count in zip(weights, counts, strict=True) for _ in range(count)]
    return [deck[i] for i in rng.permutation(num)]


def _next_fill(
    slots: Sequence[str],
    config: PromptsConfig,
    before: set[tuple[Choice, ...]],
    used: Counter[tuple[str, str]],
    rng: np.random.Generator,
) -> tuple[Choice, ...]:
    """The first fill that is not in `before` (begun anew when all are), and note it there and in `used`."""
    fill = next((fill for fill in _fills(slots, config, (), used, rng) if fill not in before), None)
    if fill is None:
        before.clear()
        fill = next(_fills(slots, config, (), used, rng))
    before.add(fill)
    for slot, (class_name, phrase) in zip(slots, fill, strict=True):
        used[slot, phrase] += 1
        if class_name:
            used[slot, f"class {class_name}"] += 1
    return fill


def _fills(
    slots: Sequence[str],
    config: PromptsConfig,
    chosen: tuple[Choice, ...],
    used: Counter[tuple[str, str]],
    rng: np.random.Generator,
) -> Iterator[tuple[Choice, ...]]:
    """Every way to fill the slots, the least used choices first."""
    if len(chosen) == len(slots):
        yield chosen
        return
    slot = slots[len(chosen)]
    taken = [choice for name, choice in zip(slots, chosen, strict=False) if name == slot]
    choices = _choices(slot, config, taken)
    choices = [choices[i] for i in rng.permutation(len(choices))]
    choices.sort(key=lambda choice: (used[slot, f"class {choice[0]}"], used[slot, choice[1]]))
    for choice in choices:
        yield from _fills(slots, config, (*chosen, choice), used, rng)


def _choices(slot: str, config: PromptsConfig, taken: Sequence[Choice]) -> list[Choice]:
    """What may fill a slot, given what fills its earlier places in the template."""
    if slot in config.attributes:
        return [("", value) for value in config.attributes[slot]]
    classes = config.objects[slot]
    choices = [(name, " ".join(phrase.split())) for name, phrases in classes.items() for phrase in phrases]
    if len(classes) == 1:
        return [choice for choice in choices if choice not in taken]
    taken_classes = {name for name, _ in taken}
    return [choice for choice in choices if choice[0] not in taken_classes]


def _write(text: str, objects: Sequence[Choice], values: Mapping[str, str], config: PromptsConfig) -> Prompt:
    phrases = iter(objects)
    written = SLOT.sub(lambda match: values.get(match[1], match[0]), text)
    if "" in values.values():
        written = _without_gaps(written)
    written = SLOT.sub(lambda match: next(phrases)[1], " ".join(written.split()))
    return Prompt(
        text=written,
        objects=tuple(ObjectPhrase(text=phrase, class_name=name) for name, phrase in objects),
        attributes={slot: values[slot] for slot in dict.fromkeys(SLOT.findall(text)) if slot in values},
        template=text,
        negative_text=config.negative,
    )


def _without_gaps(text: str) -> str:
    """Close what an empty value leaves behind: spaces before commas, commas in a row or at the ends."""
    text = re.sub(r"\s+([,;.])", r"\1", text)
    return re.sub(r"([,;])(\s*[,;])+", r"\1", text).strip(" ,;")
