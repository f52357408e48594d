"""The slots of prompt templates, and the rules that templates and their slots must keep."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from diffugen.config.errors import SettingError

SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")
"""A slot of a template, such as `{place}`."""

SOURCE, OBJECT, SOURCE_PREFIX = "source", "object", "source_"
"""Slots that tell of a source image: its prompt, the words of the object to repaint, one of its attributes."""

Objects = Mapping[str, Mapping[str, Sequence[str]]]
"""slot -> class -> phrases"""


def check_prompts(templates: Sequence[str], objects: Objects, attributes: Mapping[str, Iterable[str]]) -> None:
    """Check all rules that join templates, object slots and attribute slots.

    Raises:
        SettingError: for the first rule that is broken.
    """
    for slot, classes in objects.items():
        _check_object_slot(slot, classes)
    for slot, values in attributes.items():
        if slot in objects:
            raise SettingError(f"attributes.{slot}", "has the name of an object slot; rename one of them")
        _check_attribute_slot(slot, values)
    for number, text in enumerate(templates):
        _check_template(f"templates.{number}.text", text, objects, attributes)
    used = {slot for text in templates for slot in SLOT.findall(text)}
    for group, slots in (("objects", objects), ("attributes", attributes)):
        for slot in slots:
            if slot not in used:
                raise SettingError(f"{group}.{slot}", f"is in no template; write {{{slot}}} in one or remove it")


def reserved_slots(text: str, objects: Objects, attributes: Mapping[str, Iterable[str]]) -> list[str]:
    """The slots of a template that tell of a source image; names that a config defines itself are its own."""
    free = [slot for slot in SLOT.findall(text) if slot not in objects and slot not in attributes]
    return [slot for slot in free if slot in (SOURCE, OBJECT) or slot.startswith(SOURCE_PREFIX)]


def check_mode(mode: str, weights: Sequence[float], attributes: Mapping[str, Iterable[str]]) -> None:
    """Check that nothing is weighted where every combination comes once.

    Raises:
        SettingError: a template or an attribute is.
    """
    if mode != "cartesian":
        return
    remedy = 'which has no effect where every combination comes; remove it, or set prompts.mode to "sampled"'
    for number, weight in enumerate(weights):
        if weight != weights[0]:
            raise SettingError(f"templates.{number}.weight", f"is {weight}, {remedy}")
    for slot, values in attributes.items():
        if isinstance(values, Mapping) and len(set(values.values())) > 1:
            raise SettingError(f"attributes.{slot}", f"has weights, {remedy.replace('remove it', 'give a list')}")


def check_classes(classes: Sequence[str], objects: Objects, *, all_drawn: bool = True) -> None:
    """Check that the listed classes (none: no check) are the ones that have phrases.

    Args:
        classes: names in the order of their ids.
        objects: the object slots.
        all_drawn: every listed class must have phrases; else some may be listed only to keep their ids.

    Raises:
        SettingError: if a class is listed twice, has no phrases or is not listed.
    """
    if repeated := _first_repeated(classes):
        raise SettingError("classes", f"lists {repeated!r} twice; keep one of them")
    with_phrases = {name for slot in objects.values() for name in slot}
    for number, name in enumerate(classes):
        if all_drawn and name not in with_phrases:
            raise SettingError(
                f"classes.{number}",
                f"is {name!r}, for which prompts.objects has no phrases; add some or remove it",
            )
    if classes and (unlisted := sorted(with_phrases - set(classes))):
        raise SettingError("classes", f"lacks {unlisted[0]!r}, which prompts.objects asks for; add it")


def _check_object_slot(slot: str, classes: Mapping[str, Sequence[str]]) -> None:
    if not classes:
        raise SettingError(f"objects.{slot}", "has no classes; give at least one class with phrases")
    for name, phrases in classes.items():
        key = f"objects.{slot}.{name}"
        if not name.strip():
            raise SettingError(f"objects.{slot}", "has a class without a name; name it")
        if not phrases:
            raise SettingError(key, "has no phrases; give at least one")
        for number, phrase in enumerate(phrases):
            if not phrase.strip():
                raise SettingError(f"{key}.{number}", "is empty; give the words that stand for the class")
            _check_no_braces(f"{key}.{number}", phrase)
    if repeated := _first_repeated(" ".join(text.split()) for phrases in classes.values() for text in phrases):
        raise SettingError(f"objects.{slot}", f"has the phrase {repeated!r} twice; keep one of them")


def _check_attribute_slot(slot: str, values: Iterable[str]) -> None:
    texts = list(values)
    if not texts:
        raise SettingError(f"attributes.{slot}", "has no values; give at least one")
    if repeated := _first_repeated(texts):
        raise SettingError(
            f"attributes.{slot}",
            f"has the value {repeated!r} twice; to draw it more often give a map of weights",
        )
    for number, text in enumerate(texts):
        weight = values[text] if isinstance(values, Mapping) else 1
        if weight <= 0:
            raise SettingError(f"attributes.{slot}.{text}", f"has weight {weight}; weights must be greater than 0")
        _check_no_braces(f"attributes.{slot}.{text if isinstance(values, Mapping) else number}", text)


def _check_no_braces(key: str, text: str) -> None:
    if "{" in text or "}" in text:
        raise SettingError(key, f"is {text!r}, but slots are filled in templates only; remove the braces")


def _check_template(key: str, text: str, objects: Objects, attributes: Mapping[str, Iterable[str]]) -> None:
    rest = SLOT.sub("", text)
    if "{" in rest or "}" in rest:
        raise SettingError(key, f"is {text!r}, where a brace belongs to no slot; slots look like {{name}}")
    reserved = reserved_slots(text, objects, attributes)
    for slot, count in Counter(SLOT.findall(text)).items():
        if slot in reserved:
            continue
        if slot not in objects and slot not in attributes:
            near = difflib.get_close_matches(slot, [*objects, *attributes], n=1)
            remedy = f"did you mean {{{near[0]}}}?" if near else "add it to one of them"
            raise SettingError(key, f"has the slot {{{slot}}}, which is in neither objects nor attributes; {remedy}")
        if slot in objects and count > num_choices(objects[slot]):
            raise SettingError(
                key, f"has the slot {{{slot}}} {count} times, but objects.{slot} has fewer classes; add some"
            )


def num_choices(classes: Mapping[str, Sequence[str]]) -> int:
    """How often one object slot may stand in a template: once per class, with one class once per phrase."""
    return len(classes) if len(classes) > 1 else sum(len(phrases) for phrases in classes.values())


def _first_repeated(values: Iterable[str]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
