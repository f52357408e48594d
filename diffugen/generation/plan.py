"""What is to be generated, sample by sample, before anything is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from diffugen.config.content import fingerprint
from diffugen.config.settings import GenerateConfig
from diffugen.generation.variations import Variation
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Sample


@dataclass(frozen=True)
class Plan:
    """Images to generate.

    Attributes:
        folder: gets images/, heatmaps/ and parts/.
        class_names: of the labels that the samples will have.
        samples: in the order in which they are generated; their files are not there yet, nor are labels.
        variations: by the name of a sample, the image that it starts from; all others start from noise.
        is_whole: whether these are all the samples of the folder.
    """

    folder: Path
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    variations: Mapping[str, Variation] = field(default_factory=dict)
    is_whole: bool = True

    def made_with(self, settings: GenerateConfig) -> Plan:
        """The plan with settings that are filled in from the model: its size, and the provenance."""
        origin = _origin_of(settings)
        shared = {id(item.provenance): item.provenance for item in self.samples}
        made = {key: _as_read_back(provenance | origin) for key, provenance in shared.items()}
        samples = [replace(item, provenance=made[id(item.provenance)]) for item in self.samples]
        variations = {
            name: item if item.task == "inpaint" else replace(item, size_hw=settings.size_hw)
            for name, item in self.variations.items()
        }
        return replace(self, samples=tuple(samples), variations=variations)

    def batches(self, batch_size: int) -> list[list[Sample]]:
        """The samples that are generated together: consecutive ones that all start from noise, or from alike images."""
        alike = groupby(self.samples, key=lambda sample: kind_of(self.variations.get(sample.name)))
        groups = [list(group) for _, group in alike]
        return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]

    @property
    def folders(self) -> list[Path]:
        """Where images, heatmaps and recipes are."""
        return [self.folder / name for name in ("images", "heatmaps", "parts")]

    @property
    def prompts(self) -> list[Prompt]:
        return [sample.prompt for sample in self.samples]

    def describe(self, settings: GenerateConfig, max_prompts: int | None = None) -> list[str]:
        """Lines with the prompts and their objects, and the numbers of images and objects.

        Args:
            settings: with the size of the images.
            max_prompts: how many prompts are shown; None: all.
        """
        lines = []
        for sample in self.samples[:max_prompts]:
            objects = ", ".join(f"{phrase.text} -> {phrase.class_name}" for phrase in sample.prompt.objects)
            parent = ""
            if (item := self.variations.get(sample.name)) is not None:
                target = "" if item.target is None else f", object {item.target}"
                parent = f"    from {item.source.image}{target}"
            lines.append(f"{sample.prompt.text}    [{objects or 'no objects'}]{parent}")
        counts = Counter(phrase.class_name for sample in self.samples for phrase in sample.prompt.objects)
        num_texts = len({prompt.text for prompt in self.prompts})
        return [
            *lines,
            "",
            f"{len(self.samples)} {self._size(settings)}, {num_texts} different prompts",
            "objects: " + ", ".join(f"{name} {counts[name]}" for name in self.class_names),
            f"images without objects: {sum(not sample.prompt.objects for sample in self.samples)}",
        ]

    def _size(self, settings: GenerateConfig) -> str:
        if self.variations and all(item.task == "inpaint" for item in self.variations.values()):
            return "images of the sources' sizes"
        if settings.height is None or settings.width is None:
            return "images of the model's own size"
        return f"images of {settings.width}x{settings.height} pixels"


def kind_of(variation: Variation | None) -> tuple[Any, ...]:
    """What samples must have in common to share a batch."""
    return () if variation is None else (variation.task, variation.strength, variation.input_hw)


def plan_samples(
    folder: Path,
    class_names: Sequence[str],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    settings: GenerateConfig,
    *,
    model: Any,
    variations: Sequence[Variation | None] | None = None,
    splits: Sequence[str] | None = None,
    prefix: str = "",
) -> Plan:
    """Plan an image per prompt.

    Args:
        folder: gets the files, numbered in the order of the prompts.
        class_names: of the labels.
        prompts, seeds: aligned.
        settings: recorded as provenance.
        model: recorded as provenance.
        variations: what each sample starts from, None where it is noise; None: all start from noise.
        splits: of each sample, where they are known already.
        prefix: of the samples' names, before the number.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"one seed per prompt: {len(prompts)} prompts, {len(seeds)} seeds")
    parents = [None] * len(prompts) if variations is None else variations
    origin = {"model": model} | _origin_of(settings)
    from_noise = _as_read_back(origin)  # one for all: of a million samples it would fill the memory
    samples = tuple(
        Sample(
            name=f"{prefix}{number:06d}",
            image=folder / "images" / f"{number:06d}.png",
            prompt=prompt,
            seed=int(seed),
            task="txt2img" if variation is None else variation.task,
            split="" if splits is None else splits[number],
            provenance=from_noise if variation is None else _as_read_back(origin | variation.provenance),
            heatmap_path=folder / "heatmaps" / f"{number:06d}.npz",
        )
        for number, (prompt, seed, variation) in enumerate(zip(prompts, seeds, parents, strict=True))
    )
    by_name = {sample.name: item for sample, item in zip(samples, parents, strict=True) if item is not None}
    return Plan(folder, tuple(class_names), samples, by_name)


def _origin_of(settings: GenerateConfig) -> dict[str, Any]:
    """What provenance records of the settings; a decoder counts by its content, wherever it lies."""
    origin = settings.model_dump(mode="json", exclude={"batch_size"})
    decoder = settings.attention.decoder
    if decoder is not None and decoder.is_file():  # else it is refused before anything is generated
        origin["attention"]["decoder"] = fingerprint(decoder)
    return origin


def _as_read_back(provenance: dict[str, Any]) -> dict[str, Any]:
    """As a JSON file will give it: lists in place of tuples."""
    return json.loads(json.dumps(provenance))
