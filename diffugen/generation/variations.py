"""Variations of existing images: which ones are generated, their prompts, and the labels of inpainted ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from diffugen.class_maps import renumbered
from diffugen.config.dataset import Img2ImgTask, InpaintTask
from diffugen.config.prompt_rules import OBJECT, SLOT, SOURCE, SOURCE_PREFIX
from diffugen.config.settings import PromptsConfig
from diffugen.errors import UserError
from diffugen.generation.inpainting import cut_instances, cut_size, merge_labels, repaint_region
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt, fill_template, without_gaps, words_of
from diffugen.prompts.templates import (
    MAX_COMBINATIONS,
    Draw,
    combinations,
    draw_prompts,
    num_combinations,
    whole_passes,
)
from diffugen.sample import Sample

_KNOWN_OF_PARENTS = ("prompt", "seed")


@dataclass(frozen=True)
class Variation:
    """One image to make from another.

    Attributes:
        source: the image that it starts from.
        class_names: of the source's labels; empty where it has none.
        prompt: what it shall show; for inpainting, what the repainted object shall be.
        strength: share of the denoising steps, in (0, 1].
        target: index of the object that is repainted; None: the whole image is drawn over (img2img).
        size_hw: of an image that is drawn over; None: its own.
        margin_fraction: how far the object's mask is grown, over sqrt(H * W).
    """

    source: Sample
    class_names: tuple[str, ...]
    prompt: Prompt
    strength: float
    target: int | None = None
    size_hw: tuple[int, int] | None = None
    margin_fraction: float = 0.0

    @property
    def task(self) -> str:
        return "img2img" if self.target is None else "inpaint"

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the image to start from."""
        return self.size_hw or cut_size(self.source.size_hw)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a record says about the parent image."""
        known: dict[str, Any] = {key: value for key, value in self.source.origin().items() if key in _KNOWN_OF_PARENTS}
        parent = {"name": self.source.name, "split": self.source.split} | known
        if self.target is None:
            return {"strength": self.strength, "parent": parent}
        repainted = {"object": self.target, "class": self.class_names[self.source.class_ids[self.target]]}
        return {"strength": self.strength, "margin_fraction": self.margin_fraction, "parent": parent | repainted}

    def load(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The image to start from, uint8 RGB [H, W, 3], and where it is repainted, bool [H, W] or None."""
        image = self.source.pixels()
        if self.target is None:
            return (image if self.size_hw is None else cover(image, self.size_hw)), None
        height, width = cut_size(image.shape[:2])
        return np.ascontiguousarray(image[:height, :width]), self.region()

    def region(self) -> np.ndarray:
        """Where an object is repainted: bool [H, W]."""
        assert self.target is not None
        return repaint_region(cut_instances(self.source.instances), self.target, self.margin_fraction)


@dataclass(frozen=True)
class _Unit:
    """What a variation starts from: an image, or one object of an image."""

    source: Sample
    target: int | None = None
    class_name: str = ""


def plan_variations(
    sources: Sequence[Sample],
    class_names: Sequence[str],
    task: Img2ImgTask | InpaintTask,
    prompts: PromptsConfig,
    *,
    size_hw: tuple[int, int] | None = None,
    num_images: int | None = None,
    num_images_per_prompt: int = 1,
    seed: int = 0,
) -> list[Variation]:
    """Decide which image is varied how.

    Every image (img2img) or every object to repaint (inpaint) is used equally often: once in the mode "sampled",
    with every combination of the templates in the mode "cartesian", or as often as `num_images` needs, the last
    pass then by chance.

    Args:
        sources: images to start from.
        class_names: of their labels.
        task: what is done to them.
        prompts: templates, which may use the slots that describe the source.
        size_hw: of img2img's images; None: their own, until it is known.
        num_images: how many; None: each once.
        num_images_per_prompt: how often each combination comes, in the mode "cartesian" without `num_images`.
        seed: of the choices.

    Returns:
        The variations; none where no labelled object may be repainted.

    Raises:
        UserError: an image has no labels or no prompt where the task or a template needs them, or there are too many
            combinations.
    """
    rng = np.random.default_rng(seed)
    by_class = {name: _restricted(prompts, task, name) for name in ("", *class_names)}
    units = [unit for unit in _units(sources, class_names, task, rng) if by_class[unit.class_name].templates]
    if not units:
        return []
    chosen = _pair(units, by_class, prompts.every_combination, num_images, num_images_per_prompt, rng, seed)
    margin = task.margin_fraction if isinstance(task, InpaintTask) else 0.0
    return [
        Variation(
            source=unit.source,
            class_names=tuple(class_names),
            prompt=_completed(draw, unit, task),
            strength=task.strength,
            target=unit.target,
            size_hw=size_hw if unit.target is None else None,
            margin_fraction=margin,
        )
        for unit, draw in chosen
    ]


def label_inpainted(
    variation: Variation, attended: Instances, names: Sequence[str], min_area_fraction: float = 0.0
) -> tuple[Instances, bool]:
    """The labels of an inpainted image, and whether the new object was found; see `merge_labels`.

    Args:
        variation: what was repainted.
        attended: what the labeler finds in the new image.
        names: class names that the ids of `attended` and of the result index; other objects are left out.
        min_area_fraction: smaller objects, and smaller rests of objects, are left out.
    """
    assert variation.target is not None
    before = cut_instances(variation.source.instances)
    everything = tuple(dict.fromkeys([*names, *variation.class_names]))
    before = renumbered(before, variation.class_names, everything)  # keeps all, so that the target's index holds
    labels, found = merge_labels(before, variation.target, variation.region(), attended, min_area_fraction)
    return renumbered(labels, everything, names), found


def cover(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The image scaled so that it covers height and width, the middle cut out: uint8 RGB."""
    height, width = size_hw
    if image.shape[:2] == size_hw:
        return image
    scale = max(height / image.shape[0], width / image.shape[1])
    scaled_wh = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    scaled = cv2.resize(image, scaled_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def _units(
    sources: Sequence[Sample],
    class_names: Sequence[str],
    task: Img2ImgTask | InpaintTask,
    rng: np.random.Generator,
) -> Iterator[_Unit]:
    for source in sources:
        if isinstance(task, Img2ImgTask):
            yield _Unit(source)
            continue
        if source.encoded is None:
            raise UserError(
                f"setting 'task.source': {source.image} is not labelled, so there is no object to repaint; label the "
                "photos first (`diffugen label`)"
            )
        instances = cut_instances(source.instances)
        names = [class_names[class_id] for class_id in instances.class_ids]
        areas = instances.masks.sum(axis=(1, 2))
        believed = (areas > 0) & (instances.scores >= task.min_score)
        wanted = [i for i, name in enumerate(names) if believed[i] and (not task.only or name in task.only)]
        if wanted and task.target == "largest":
            wanted = [max(wanted, key=lambda i: areas[i])]
        if wanted and task.target == "random":
            wanted = [int(rng.choice(wanted))]
        yield from (_Unit(source, i, names[i]) for i in wanted)


def _restricted(prompts: PromptsConfig, task: Img2ImgTask | InpaintTask, class_name: str) -> PromptsConfig:
    """The prompts that may be drawn for an object of a class; without templates where there are none."""
    if isinstance(task, Img2ImgTask) or not task.replace:
        return prompts
    allowed = task.replace.get(class_name, ())
    objects = {
        slot: {name: phrases for name, phrases in classes.items() if name in allowed}
        for slot, classes in prompts.objects.items()
    }
    barren = {slot for slot, classes in objects.items() if not classes}
    templates = tuple(template for template in prompts.templates if barren.isdisjoint(SLOT.findall(template.text)))
    return prompts.model_copy(update={"objects": objects, "templates": templates})


def _pair(
    units: Sequence[_Unit],
    by_class: dict[str, PromptsConfig],
    every_combination: bool,
    num_images: int | None,
    num_images_per_prompt: int,
    rng: np.random.Generator,
    seed: int,
) -> list[tuple[_Unit, Draw]]:
    """Which units are varied how; see `plan_variations`."""
    if every_combination:
        num = sum(num_combinations(by_class[unit.class_name]) for unit in units)
        if num > MAX_COMBINATIONS:
            raise UserError(
                f"setting 'prompts.mode' is \"cartesian\", which here gives {num} variations; shorten the lists of "
                'prompts, or set it to "sampled"'
            )
        every = [(unit, draw) for unit in units for draw in combinations(by_class[unit.class_name])]
        return [every[i] for i in whole_passes(num, num_images or num * num_images_per_prompt, rng)]
    picked = [units[i] for i in whole_passes(len(units), num_images or len(units), rng)]
    draws = {
        name: iter(draw_prompts(by_class[name], count, seed))
        for name, count in Counter(unit.class_name for unit in picked).items()
    }
    return [(unit, next(draws[unit.class_name])) for unit in picked]


def _completed(draw: Draw, unit: _Unit, task: Img2ImgTask | InpaintTask) -> Prompt:
    """The prompt of a draw, its slots that describe the source filled.

    `{source}` becomes the source's own template with its objects; an attribute that stands next to it and that the
    source has too replaces the source's value there.
    """
    known = unit.source.prompt if unit.source.prompt.text else None
    slots = SLOT.findall(draw.template)
    of_source = {slot for slot in slots if slot not in draw.attributes}
    if known is None and any(slot == SOURCE or slot.startswith(SOURCE_PREFIX) for slot in of_source):
        raise UserError(
            f"setting 'prompts.templates': {draw.template!r} needs the prompt of {unit.source.image}, but nobody "
            "knows it; write what the photos show into the template"
        )
    attributes = dict(draw.attributes)
    if known is not None:
        asked = {slot: slot.removeprefix(SOURCE_PREFIX) for slot in of_source if slot.startswith(SOURCE_PREFIX)}
        attributes |= {slot: known.attributes.get(name, "") for slot, name in asked.items()}
    if known is not None and SOURCE in of_source:
        return _extended(known, draw, attributes)
    phrases = iter(draw.objects)
    target = ObjectPhrase(words_of(unit.class_name, task.class_words), unit.class_name)
    objects = [
        target if slot == OBJECT and slot in of_source else next(phrases) for slot in slots if slot not in attributes
    ]
    return fill_template(draw.template, objects, attributes, draw.negative_text)


def _extended(source: Prompt, draw: Draw, attributes: dict[str, str]) -> Prompt:
    """The source's prompt with the attributes of a template that has `{source}` in it."""
    replaced = set(source.attributes) & set(attributes)
    others = SLOT.sub(lambda match: "" if match[1] in replaced else match[0], draw.template)
    template = without_gaps(others.replace(f"{{{SOURCE}}}", source.template or source.text))
    return fill_template(template, source.objects, source.attributes | attributes, draw.negative_text)
