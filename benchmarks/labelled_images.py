"""Images with exact instances and the words for them: rendered toy scenes, or any labelled dataset with phrases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.errors import UserError
from diffugen.files import read_jsonl
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt

FIRST_SEED = {"development": 5_000_000, "reporting": 6_000_000}
"""Toy scenes that methods are chosen on, and those that figures are reported on; training uses neither."""

SEED_STRIDE = 10_000
"""Scenes of `--seed` 0, 1, ... differ, as long as there are fewer than this."""


MAX_INSTANCES = 6
"""Of a dataset's image: a caption that lists more is cut, and no image model distinguishes them."""


@dataclass(frozen=True)
class LabelledImage:
    """One image of the benchmark.

    Attributes:
        image: uint8 RGB [H, W, 3].
        truth: its instances; class ids index the benchmark's class names.
        prompt: what it shows.
        beside: the prompt with one more object, which the image does not show: the last of its objects.
        alone: a prompt of that object only.
    """

    image: np.ndarray
    truth: Instances
    prompt: Prompt
    beside: Prompt
    alone: Prompt


def toy_images(part: str, seed: int, num: int) -> tuple[list[str], Iterator[LabelledImage]]:
    """Class names, and scenes of common kinds with their captions."""
    from diffugen.toyworld import render
    from diffugen.toyworld.captions import caption_with_phrases
    from diffugen.toyworld.palette import COLOURS
    from diffugen.toyworld.scene import COMMON_KINDS, sample_scene

    first = FIRST_SEED[part] + seed * SEED_STRIDE

    def images() -> Iterator[LabelledImage]:
        for k in range(first, first + num):
            scene = sample_scene(k, common_fraction=1.0)
            drawn = render(scene)
            text, phrases = caption_with_phrases(scene, k)
            kinds = [thing.kind for thing in scene.objects]
            truth = Instances.from_masks(drawn.masks, [COMMON_KINDS.index(kind) for kind in kinds])
            rng = np.random.default_rng([k, 23])
            absent = str(rng.choice([kind for kind in COMMON_KINDS if kind not in kinds]))
            words = f"{rng.choice(list(COLOURS))} {absent}" if rng.random() < 0.7 else absent
            prompt = Prompt(text, tuple(map(ObjectPhrase, phrases, kinds)))
            yield _labelled(drawn.image, truth, prompt, ObjectPhrase(words, absent))

    return list(COMMON_KINDS), images()


def dataset_images(
    root: Path, split: str, phrases: Path | None, part: str, seed: int, num: int
) -> tuple[list[str], Iterator[LabelledImage]]:
    """Class names, and images of a labelled dataset.

    Args:
        root: a dataset folder that `diffugen.datasets.folder.read_dataset` reads.
        split: of the dataset.
        phrases: lines of JSON with "name" (of the image, without suffix), "caption", and its objects' "phrases"
            and "kinds" (class names), one per instance; images without a line, or all of them without a file, are
            captioned with their class names.
        part: "development" or "reporting"; by its name an image belongs to one of them for good.
        seed: which block of `num` images, counted from 0.
        num: how many.

    Images without instances, and those with more than `MAX_INSTANCES`, are left out.
    """
    names = class_names_of(root)
    lines = {line["name"]: line for line in read_jsonl(phrases)} if phrases is not None else {}

    def images() -> Iterator[LabelledImage]:
        suitable = (
            row for row in read_dataset(root, split) if _part_of(row[0]) == part and 0 < len(row[2]) <= MAX_INSTANCES
        )
        for name, image, truth in islice(suitable, seed * num, (seed + 1) * num):
            prompt = _prompt(lines.get(Path(name).stem), [names[class_id] for class_id in truth.class_ids], name)
            free = [other for other in names if other not in {phrase.class_name for phrase in prompt.objects}]
            if not free:
                raise UserError(f"{name} shows every class of {root}, so none can be asked for in vain")
            absent = str(np.random.default_rng([_digest(name), 23]).choice(free))
            yield _labelled(image, truth, prompt, ObjectPhrase(absent, absent))

    return names, images()


def _prompt(line: dict[str, object] | None, class_names: Sequence[str], name: str) -> Prompt:
    if line is None:
        text = "a photo of " + " and ".join(_with_article(class_name) for class_name in class_names)
        return Prompt(text, tuple(ObjectPhrase(class_name, class_name) for class_name in class_names))
    try:
        pairs = zip(line["phrases"], line["kinds"], strict=True)  # type: ignore[call-overload]
        return Prompt(str(line["caption"]), tuple(ObjectPhrase(*pair) for pair in pairs))
    except (KeyError, TypeError, ValueError):
        example = {"caption": "a red car", "phrases": ["red car"], "kinds": ["car"]}
        raise UserError(
            f"phrases of {name} must be like {json.dumps(example)}, a phrase for every kind, not {json.dumps(line)}"
        ) from None


def _labelled(image: np.ndarray, truth: Instances, prompt: Prompt, absent: ObjectPhrase) -> LabelledImage:
    """Ask for the absent object beside the last one of the prompt, and alone."""
    words = _with_article(absent.text)
    last = prompt.objects[-1].text
    end = prompt.text.lower().rindex(last.lower()) + len(last)
    beside = Prompt(f"{prompt.text[:end]} and {words}{prompt.text[end:]}", (*prompt.objects, absent))
    return LabelledImage(image, truth, prompt, beside, Prompt(f"a photo of {words}", (absent,)))


def _with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _part_of(name: str) -> str:
    return "reporting" if _digest(name) % 2 else "development"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
