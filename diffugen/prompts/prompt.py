"""Prompts, what is decided per prompt (seeds and splits), and the plain words of classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any

from diffugen.config.prompt_rules import SLOT
from diffugen.config.settings import PromptsConfig


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

    @property
    def is_known(self) -> bool:
        """Whether anybody said what the image shows; of photos alone nobody did."""
        return bool(self.text or self.template)

    def to_json(self) -> dict[str, Any]:
        """A JSON form."""
        return asdict(self)

    def to_provenance(self) -> dict[str, Any]:
        """Its text, and apart from it how the text is made up: how a dataset records what an image was made from."""
        details = self.to_json()
        return {"prompt": details.pop("text"), "prompt_details": details}

    @classmethod
    def from_provenance(cls, value: Mapping[str, Any]) -> Prompt | None:
        """The inverse of `to_provenance`; None where the prompt is not known."""
        if "prompt_details" not in value:
            return None
        return cls.from_json({"text": value["prompt"], **value["prompt_details"]})

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


def caption(class_names: Sequence[str], words: Mapping[str, str]) -> Prompt:
    """A caption of labelled objects, each class once: "a photo of a car and a grand piano"."""
    phrases = [ObjectPhrase(words_of(name, words), name) for name in dict.fromkeys(class_names)]
    shown = " and ".join(f"a {phrase.text}" for phrase in phrases)
    text = f"a photo of {shown}" if shown else "a photo"
    return Prompt(text=text, objects=tuple(phrases), template=text)


def words_of(class_name: str, words: Mapping[str, str]) -> str:
    """The words for a class: those given, else its name with spaces."""
    return words.get(class_name) or " ".join(class_name.replace("-", " ").replace("_", " ").split())


def kind_of(class_name: str) -> str:
    """What kind of thing a class is, by its last word: a "dining table" is a "table", and so are "Tables"."""
    return words_of(class_name, {}).lower().rpartition(" ")[2].removesuffix("s")
