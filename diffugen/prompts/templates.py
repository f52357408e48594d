"""From templates to prompts: drawn in balance and without repeats, every combination, or so many per class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffugen.config.prompt_rules import SLOT, reserved_slots
from diffugen.config.settings import PromptsConfig, TemplateConfig
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt, fill_template

MAX_COMBINATIONS = 1_000_000
"""More prompts than that are a mistake rather than a wish."""

Choice = tuple[str, str]
"""What fills a slot once: (class name, phrase), or ("", value) for an attribute."""


@dataclass(frozen=True)
class Draw:
    """A template and what was drawn for its slots: a prompt, but for the slots that describe a source image."""

    template: str
    objects: tuple[ObjectPhrase, ...]
    attributes: dict[str, str]
    negative_text: str

    def prompt(self) -> Prompt:
        """The prompt, where the template has no slot that describes a source image."""
        return fill_template(self.template, self.objects, self.attributes, self.negative_text)


@dataclass
class _Tally:
    """What was drawn so far, and (where classes have counts) how many images each class still needs."""

    used: Counter[tuple[str, str]] = field(default_factory=Counter)  # (slot, class or phrase or value) -> times
    left: dict[str, int] | None = None

    def order(self, slot: str, choices: list[Choice], rng: np.random.Generator) -> list[Choice]:
        """The choices that may come, the most wanted first, ties by chance."""
        shuffled = [choices[i] for i in rng.permutation(len(choices))]
        if self.left is not None:
            shuffled = [choice for choice in shuffled if not choice[0] or self.left[choice[0]] > 0]
        return sorted(shuffled, key=lambda choice: self._rank(slot, choice))

    def _rank(self, slot: str, choice: Choice) -> tuple[int, int, int]:
        missing = self.left[choice[0]] if self.left is not None and choice[0] else 0
        return -missing, self.used[slot, f"class {choice[0]}"], self.used[slot, choice[1]]

    def note(self, slots: Sequence[str], fill: Sequence[Choice]) -> None:
        """Count what a prompt was filled with."""
        for slot, (class_name, phrase) in zip(slots, fill, strict=True):
            self.used[slot, phrase] += 1
            if class_name:
                self.used[slot, f"class {class_name}"] += 1
        if self.left is not None:
            for class_name in {name for name, _ in fill if name}:
                self.left[class_name] -= 1


def sample_prompts(config: PromptsConfig, num: int, seed: int) -> list[Prompt]:
    """`num` prompts as `draw_prompts` draws them.

    Raises:
        UserError: a template has a slot that only a source image can fill.
    """
    for number, template in enumerate(config.templates):
        if reserved := reserved_slots(template.text, config.objects, config.attributes):
            raise UserError(
                f"setting 'prompts.templates.{number}' has the slot {{{reserved[0]}}}, which describes a source "
                "image; use it with the tasks img2img and inpaint, or define it in prompts.attributes"
            )
    return [draw.prompt() for draw in draw_prompts(config, num, seed)]


def draw_prompts(config: PromptsConfig, num: int, seed: int) -> list[Draw]:
    """Fill the templates' slots, `num` times.

    "sampled": each template gets its share of `num` by weight, exact to one prompt (largest remainder), and so
    does each value of a weighted attribute within its template. All other choices are balanced: the class, phrase
    or value that was drawn least comes next, ties by chance. No combination of them comes twice from one template
    (and with the same weighted values) before all have come once.

    "cartesian": every combination of every template, in the order of the config, again and again; where `num`
    ends within a pass, chance decides which combinations are in it.

    Args:
        config: templates and what fills their slots.
        num: how many prompts.
        seed: of the choices and the order.
    """
    rng = np.random.default_rng(seed)
    if config.every_combination:
        every = list(combinations(config))
        return [every[index] for index in whole_passes(len(every), num, rng)]
    shares = largest_remainder([template.weight for template in config.templates], num)
    tally = _Tally()
    draws = []
    for template, share in zip(config.templates, shares, strict=True):
        source = _TemplateDraws(template, config, tally, rng, share)
        draws += [source.next() for _ in range(share)]
    return [draw for draw in (draws[i] for i in rng.permutation(num)) if draw is not None]


def draw_per_class(config: PromptsConfig, counts: Mapping[str, int], seed: int) -> list[Draw]:
    """Fill the templates' slots until each class is asked for in exactly so many prompts.

    Templates come by weight as far as the counts allow; otherwise like `draw_prompts` in its mode "sampled",
    where weights of attribute values are not looked at.

    Raises:
        UserError: the templates cannot meet the counts.
    """
    rng = np.random.default_rng(seed)
    tally = _Tally(left=dict(counts))
    sources = [_TemplateDraws(template, config, tally, rng) for template in config.templates]
    draws: list[Draw] = []
    while any(tally.left.values()):  # type: ignore[union-attr]
        by_weight = sorted(sources, key=lambda source: (source.num_drawn + 1) / source.template.weight)
        draw = next((draw for source in by_weight if (draw := source.next()) is not None), None)
        if draw is None:
            missing = {name: count for name, count in (tally.left or {}).items() if count}
            raise UserError(
                f"setting 'num_images_per_class': after {len(draws)} images no template can ask for what is left "
                f"({', '.join(f'{count} of {name}' for name, count in missing.items())}); add a template with one "
                "object slot, or change the counts"
            )
        draws.append(draw)
    return [draws[i] for i in rng.permutation(len(draws))]


def combinations(config: PromptsConfig) -> Iterator[Draw]:
    """Every template with every fill of its slots, in the order of the config.

    Raises:
        UserError: there are more than a million.
    """
    if (num := num_combinations(config)) > MAX_COMBINATIONS:
        raise UserError(
            f"setting 'prompts.mode' is \"cartesian\", which here gives {num} combinations; shorten the lists of "
            'prompts, or set it to "sampled" and give num_images'
        )
    for template in config.templates:
        slots, attributes = _slots(template.text, config)
        for fill in _fills([*slots, *attributes], config, (), lambda _, choices: choices):
            yield _draw(template, slots, attributes, fill, {}, config)


def num_combinations(config: PromptsConfig) -> int:
    """How many prompts `combinations` gives, without making them."""
    total = 0
    for template in config.templates:
        slots, attributes = _slots(template.text, config)
        objects = [_num_fills(config.objects[slot], times) for slot, times in Counter(slots).items()]
        total += math.prod(objects) * math.prod(len(config.attributes[slot]) for slot in attributes)
    return total


def whole_passes(num_items: int, num: int, rng: np.random.Generator) -> list[int]:
    """`num` indices of items: all of them in order, again and again; the last pass, if not whole, by chance."""
    passes, rest = divmod(num, num_items)
    return [*range(num_items)] * passes + sorted(rng.permutation(num_items)[:rest].tolist())


class _TemplateDraws:
    """The fills of one template, one after the other; `num` is how many will be asked for, if that is known.

    Only then are there shares for weighted attributes.
    """

    def __init__(
        self,
        template: TemplateConfig,
        config: PromptsConfig,
        tally: _Tally,
        rng: np.random.Generator,
        num: int | None = None,
    ) -> None:
        self.template, self.config, self.tally, self.rng = template, config, tally, rng
        self.slots, attributes = _slots(template.text, config)
        weighted = [slot for slot in attributes if num is not None and _is_weighted(config.attributes[slot])]
        self.plain = [slot for slot in attributes if slot not in weighted]
        self.decks = {slot: _deck(config.attributes[slot], num or 0, rng) for slot in weighted}  # type: ignore[arg-type]
        self.num_drawn = 0
        self.before: dict[tuple[str, ...], set[tuple[Choice, ...]]] = {}  # by the weighted values: these keep shares

    def next(self) -> Draw | None:
        """The next fill, which has not come before (or again, when all have); None where no class may come any more."""
        values = {slot: deck[self.num_drawn] for slot, deck in self.decks.items()}
        before = self.before.setdefault(tuple(values.values()), set())
        free = [*self.slots, *self.plain]

        def order(slot: str, choices: list[Choice]) -> list[Choice]:
            return self.tally.order(slot, choices, self.rng)

        fill = next((fill for fill in _fills(free, self.config, (), order) if fill not in before), None)
        if fill is None:
            before.difference_update(_fills(free, self.config, (), order))
            fill = next(_fills(free, self.config, (), order), None)
        if fill is None:
            return None
        before.add(fill)
        self.tally.note(free, fill)
        self.num_drawn += 1
        return _draw(self.template, self.slots, self.plain, fill, values, self.config)


def _slots(text: str, config: PromptsConfig) -> tuple[list[str], list[str]]:
    """The object slots of a template as often as they stand there, and its attribute slots once each."""
    slots = SLOT.findall(text)
    objects = [slot for slot in slots if slot in config.objects]
    return objects, [slot for slot in dict.fromkeys(slots) if slot in config.attributes]


def _draw(
    template: TemplateConfig,
    slots: Sequence[str],
    plain: Sequence[str],
    fill: Sequence[Choice],
    values: Mapping[str, str],
    config: PromptsConfig,
) -> Draw:
    phrases, rest = fill[: len(slots)], fill[len(slots) :]
    return Draw(
        template=template.text,
        objects=tuple(ObjectPhrase(text=phrase, class_name=name) for name, phrase in phrases),
        attributes={**values, **{slot: value for slot, (_, value) in zip(plain, rest, strict=True)}},
        negative_text=config.negative,
    )


def _is_weighted(values: Any) -> bool:
    """Equal weights are no weights."""
    return isinstance(values, Mapping) and len(set(values.values())) > 1


def _deck(weights: Mapping[str, float], num: int, rng: np.random.Generator) -> list[str]:
    counts = largest_remainder(list(weights.values()), num)
    deck = [value for value, count in zip(weights, counts, strict=True) for _ in range(count)]
    return [deck[i] for i in rng.permutation(num)]


def _fills(
    slots: Sequence[str],
    config: PromptsConfig,
    chosen: tuple[Choice, ...],
    order: Callable[[str, list[Choice]], list[Choice]],
) -> Iterator[tuple[Choice, ...]]:
    """Every way to fill the slots, each slot's choices in the given order."""
    if len(chosen) == len(slots):
        yield chosen
        return
    slot = slots[len(chosen)]
    taken = [choice for name, choice in zip(slots, chosen, strict=False) if name == slot]
    for choice in order(slot, _choices(slot, config, taken)):
        yield from _fills(slots, config, (*chosen, choice), order)


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


def _num_fills(classes: Mapping[str, Sequence[str]], times: int) -> int:
    """In how many ways an object slot that stands so many times can be filled; see `PromptsConfig`."""
    if len(classes) == 1:
        return math.perm(len(next(iter(classes.values()))), times)
    ways = [1] + [0] * times  # ways[k]: to choose k phrases of k different classes, whatever their order
    for phrases in classes.values():
        for k in range(times, 0, -1):
            ways[k] += ways[k - 1] * len(phrases)
    return ways[times] * math.factorial(times)


def largest_remainder(weights: Sequence[float], num: int) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `num` (Hamilton's method; ties to the first)."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * num
    counts = np.floor(exact + 1e-9).astype(int)  # 0.3 / 1.0 * 10 is a little less than 3
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: num - counts.sum()]] += 1
    return counts.tolist()
