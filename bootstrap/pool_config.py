"""Settings of the photos that a loop labels itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field, model_validator

from diffugen.config.errors import SettingError, require
from diffugen.config.loader import ConfigPath, HubPath, Strict
from diffugen.config.settings import ClassMap
from diffugen.prompts.prompt import ObjectPhrase, Prompt


class PoolConfig(Strict):
    """The user's own unlabelled photos as training images: labelled and filtered again in every round."""

    renamed: ClassVar[Mapping[str, str]] = {
        "repeats": "was removed: 'pool.pasted' makes more of few photos (docs/rounds.md)"
    }

    folder: ConfigPath = Field(description="folder of photos")
    captions: tuple[str, ...] = Field(
        default=(),
        description="with a model: what they show, 'a photo of a <grand-piano>'; several, with words for similar "
        "things, where the model knows no word for the object: what they agree on counts",
    )
    objects: ClassMap = Field(
        default={},
        description="class -> phrases: with a model those of the captions, with 'sam3' what to look for (default: the "
        "class's name)",
    )
    presence: bool = Field(
        default=True,
        description="with one caption: leave out what a photo does not show, as far as the model can tell; false where "
        "all of them show everything",
    )
    sam3: HubPath | None = Field(
        default=None,
        description="without a model and labels: a SAM 3 that finds the objects for round 0, by the phrases of "
        "'objects'; folder in transformers' format, or hub id",
    )
    pasted: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="with a model: how often each photo's object is pasted onto a generated image that shows none",
    )

    @model_validator(mode="after")
    def _captions_agree(self) -> PoolConfig:
        require(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[SettingError]:
        shown = [[phrase.class_name for phrase in prompt.objects] for prompt in self.prompts]
        for number, classes in enumerate(shown):
            if not classes or classes != shown[0]:
                yield SettingError(
                    f"captions.{number}",
                    f"names {classes or 'no class'}, but captions must name the same classes in one order, the first "
                    f"{shown[0] or 'at least one'}; write a phrase of pool.objects for each into it",
                )

    @property
    def prompts(self) -> list[Prompt]:
        """A prompt per caption, its objects in the order of its words."""
        return [Prompt(text, self._objects_in(text), template=text) for text in self.captions]

    def _objects_in(self, text: str) -> tuple[ObjectPhrase, ...]:
        """The phrases that stand in a caption; the words of "red car" are no further "car"."""
        classes = {phrase: name for name, phrases in self.objects.items() for phrase in phrases}
        found = {}
        for phrase in sorted(classes, key=len, reverse=True):
            place = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)
            if place:
                found[place.start()] = ObjectPhrase(phrase, classes[phrase])
                text = text[: place.start()] + "\0" * len(phrase) + text[place.end() :]
        return tuple(found[start] for start in sorted(found))
