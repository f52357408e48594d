"""The slots of prompt templates, and the rules that templates and their slots must keep."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from diffugen.config.errors import SettingError
from diffugen.naming import is_class_name

SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")
"""A slot of a template, such as `{place}`."""

SOURCE, OBJECT, SOURCE_PREFIX = "source", "object", "source_"
"""Slots that describe a source image: its prompt, the words of the object to repaint, one of its attributes."""

Objects = Mapping[str, Mapping[str, Sequence[str]]]
"""slot -> class -> phrases"""

Attributes = Mapping[str, Iterable[str]]
"""slot -> values, or a map from value to weight"""


def prompt_mistakes(templates: Sequence[str], objects: Objects, attributes: Attributes) -> Iterator[SettingError]:
    """What breaks the rules that join templates, object slots and attribute slots."""
    for slot, classes in objects.items():
        yield from _object_slot_mistakes(slot, classes)
    for slot, values in attributes.items():
        if slot in objects:
            yield SettingError(f"attributes.{slot}", "has the name of an object slot; rename one of them")
        yield from _attribute_slot_mistakes(slot, values)
    for number, text in enumerate(templates):
        yield from _template_mistakes(f"templates.{number}", text, objects, attributes)


def unused_slots(templates: Iterable[str], objects: Objects, attributes: Attributes) -> Iterator[SettingError]:
    """Slots that are in no template."""
    used = {slot for text in templates for slot in SLOT.findall(text)}
    for group, slots in (("objects", objects), ("attributes", attributes)):
        for slot in slots:
            if slot not in used:
                yield SettingError(f"{group}.{slot}", f"is in no template; write {{{slot}}} in one or remove it")


def reserved_slots(text: str, objects: Objects, attributes: Attributes) -> list[str]:
    """The slots of a template that describe a source image; names that a config defines itself are its own."""
    free = [slot for slot in SLOT.findall(text) if slot not in objects and slot not in attributes]
    return [slot for slot in free if slot in (SOURCE, OBJECT) or slot.startswith(SOURCE_PREFIX)]


def weight_mistakes(weights: Sequence[float], attributes: Attributes) -> Iterator[SettingError]:
    """What is weighted although every combination comes once."""
    remedy = 'which has no effect where every combination comes; remove it, or set prompts.mode to "sampled"'
    for number, weight in enumerate(weights):
        if weight != weights[0]:
            yield SettingError(f"templates.{number}", f"has the weight {weight:g}, {remedy}")
    for slot, values in attributes.items():
        if isinstance(values, Mapping) and len(set(values.values())) > 1:
            yield SettingError(f"attributes.{slot}", f"has weights, {remedy.replace('remove it', 'give a list')}")


def class_mistakes(classes: Sequence[str], objects: Objects, *, all_drawn: bool = True) -> Iterator[SettingError]:
    """Where the listed classes (none: no check) are not the ones that have phrases.

    Args:
        classes: names in the order of their ids.
        objects: the object slots.
        all_drawn: every listed class must have phrases; else some may be listed only to keep their ids.
    """
    if repeated := _first_repeated(classes):
        yield SettingError("classes", f"lists {repeated!r} twice; keep one of them")
    with_phrases = {name for slot in objects.values() for name in slot}
    for number, name in enumerate(classes):
        if not name.strip():
            yield SettingError(f"classes.{number}", "is empty; name the class")
        elif not is_class_name(name):
            yield SettingError(f"classes.{number}", f"is {name[:60]!a}, which is no line of text; rename it")
        if all_drawn and name not in with_phrases:
            yield SettingError(
                f"classes.{number}",
                f"is {name!r}, for which prompts.objects has no phrases; add some or remove it",
            )
    if classes and (unlisted := sorted(with_phrases - set(classes))):
        yield SettingError("classes", f"lacks {unlisted[0]!r}, which prompts.objects asks for; add it")


def _object_slot_mistakes(slot: str, classes: Mapping[str, Sequence[str]]) -> Iterator[SettingError]:
    if not classes:
        yield SettingError(f"objects.{slot}", "has no classes; give at least one class with phrases")
    for name, phrases in classes.items():
        key = f"objects.{slot}.{name}"
        if not name.strip():
            yield SettingError(f"objects.{slot}", "has a class without a name; name it")
        if not phrases:
            yield SettingError(key, "has no phrases; give at least one")
        for number, phrase in enumerate(phrases):
            if not phrase.strip():
                yield SettingError(f"{key}.{number}", "is empty; give the words that stand for the class")
            yield from _braces(f"{key}.{number}", phrase)
    if repeated := _first_repeated(" ".join(text.split()) for phrases in classes.values() for text in phrases):
        yield SettingError(f"objects.{slot}", f"has the phrase {repeated!r} twice; keep one of them")


def _attribute_slot_mistakes(slot: str, values: Iterable[str]) -> Iterator[SettingError]:
    texts = list(values)
    if not texts:
        yield SettingError(f"attributes.{slot}", "has no values; give at least one")
    if repeated := _first_repeated(texts):
        yield SettingError(
            f"attributes.{slot}",
            f"has the value {repeated!r} twice; to draw it more often give a map of weights",
        )
    for number, text in enumerate(texts):
        weight = values[text] if isinstance(values, Mapping) else 1
        if weight <= 0:
            yield SettingError(f"attributes.{slot}.{text}", f"has weight {weight}; weights must be greater than 0")
        yield from _braces(f"attributes.{slot}.{text if isinstance(values, Mapping) else number}", text)


def _braces(key: str, text: str) -> Iterator[SettingError]:
    if "{" in text or "}" in text:
        yield SettingError(key, f"is {text!r}, but slots are filled in templates only; remove the braces")


def _template_mistakes(key: str, text: str, objects: Objects, attributes: Attributes) -> Iterator[SettingError]:
    rest = SLOT.sub("", text)
    if "{" in rest or "}" in rest:
        yield SettingError(key, f"is {text!r}, where a brace belongs to no slot; slots look like {{name}}")
    reserved = reserved_slots(text, objects, attributes)
    for slot, count in Counter(SLOT.findall(text)).items():
        if slot in reserved:
            continue
        if slot not in objects and slot not in attributes:
            near = difflib.get_close_matches(slot, [*objects, *attributes], n=1)
            remedy = f"did you mean {{{near[0]}}}?" if near else "add it to one of them"
            yield SettingError(key, f"has the slot {{{slot}}}, which is in neither objects nor attributes; {remedy}")
        elif slot in objects and count > num_choices(objects[slot]):
            yield SettingError(
                key, f"has the slot {{{slot}}} {count} times, but objects.{slot} has fewer classes; add some"
            )


def num_choices(classes: Mapping[str, Sequence[str]]) -> int:
    """How often one object slot may stand in a template: once per class, with one class once per phrase."""
    return len(classes) if len(classes) > 1 else sum(len(phrases) for phrases in classes.values())


def _first_repeated(values: Iterable[str]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
