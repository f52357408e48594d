"""New configs for `diffugen init`: what can be found out is filled in, and comments say what to change."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffugen.cli.model_facts import ModelFacts
from diffugen.config.settings import DEFAULT_ATTRIBUTES
from diffugen.errors import UserError
from diffugen.images import list_images, read_image
from diffugen.prompts.prompt import kind_of, words_of

NUM_COMMON = 2
"""Common classes in addition to the object: enough that a detector learns what the object is not."""

NUM_OTHERS = 8
"""Other things that are shown without a label, so that the object is told from them."""

WIDTH = 110


@dataclass(frozen=True)
class Request:
    """What a config is for.

    Attributes:
        name: of the run.
        classes: the object first; what was not given follows from the weights.
        photos: folder of photos of the object; None for a dataset.
        model: as `model.path` of a config.
        facts: what is known of it.
        weights: of the detector to start from; None where there is none.
        weight_classes: that it knows.
        word: for something similar to the object; None: chosen.
        folder: of the config file; paths in it are relative to that.
    """

    name: str
    classes: Sequence[str]
    photos: Path | None
    model: str
    facts: ModelFacts
    weights: Path | None
    weight_classes: Sequence[str]
    word: str | None
    folder: Path

    @property
    def token(self) -> str:
        return f"<{self.classes[0].replace(' ', '-')}>"

    @property
    def start_word(self) -> str | None:
        """The word that the concept starts from: the given one, the class's last one where the model knows it, else
        what the model's folder suggests; None where the loop has to choose among the classes of the weights."""
        last = words_of(self.classes[0], {}).split()[-1]
        suggested = self.facts.suggested.get("concept", {}).get("initializer_word")
        return self.word or (last if self.facts.knows(last) else suggested)

    @property
    def others(self) -> list[str] | dict[str, int]:
        """Words for things that are none of the classes, of those that the weights and the model know; with weights
        where the start word is one, as the object is most easily taken for that."""
        own = {kind_of(name) for name in self.classes}
        drawn = (name for name in self.weight_classes if self.facts.draws(name) and kind_of(name) not in own)
        known = list(dict.fromkeys(map(_spoken, drawn)))
        num = min(NUM_OTHERS, len(known))
        spread = [known[k * len(known) // num] for k in range(num)]  # detectors list like things beside each other
        start = self.start_word
        if not spread or start is None or kind_of(start) in own:
            return spread
        return {start: max(1, num // 2), **{words: 1 for words in spread if words != start}}

    def path(self, path: Path) -> str:
        """A path as it stands in the config: relative where it is in or beside the config's folder."""
        relative = os.path.relpath(path.resolve(), self.folder.resolve())
        return str(path.resolve()) if relative.startswith(os.path.join("..", "..")) else Path(relative).as_posix()


def loop_config(request: Request) -> dict[str, Any]:
    """A config of `diffugen loop`.

    Raises:
        UserError: there is no start word, and the loop can choose none.
    """
    suggested, token, rare = request.facts.suggested, request.token, request.classes[0]
    assert request.photos is not None and request.weights is not None
    if request.start_word is None and not any(map(request.facts.draws, request.weight_classes)):
        raise _no_start_word(request)
    others = ", ".join(request.weight_classes[:20]) + (", ..." if len(request.weight_classes) > 20 else "")
    return {
        "//": "Config of `diffugen loop`. Keys that begin with // are comments.",
        "name": request.name,
        "// classes": f"The object, then common things that prompts show beside it. The weights know: {others}.",
        "classes": list(request.classes),
        **_model(request),
        "// concept": f"{_photos(request.photos)} teach the model a word for the object. After learning look at "
        "concept/samples.png: if it does not show the object, try more steps or another initializer_word"
        + _unset(request),
        "concept": _concept(request),
        "// prompts": "What is generated. Words in {rare} and {common} are labelled, other slots vary the scene: write "
        "where your object will be seen. {other}: things that are none of the classes, and must not be taken for them.",
        "prompts": _prompts(request, {rare: [token]}),
        **_generate(request),
        **_label(request),
        "// detector": "The checkpoint that is fine-tuned. More epochs take longer and fit closer.",
        "detector": {"base_weights": request.path(request.weights), **suggested.get("detector", {"epochs": 40})},
        "// pool": "The photos are labelled and trained on as well, and their objects pasted onto generated images "
        "(pasted: how often each). presence: true if some do not show the object.",
        "pool": {
            "folder": request.path(request.photos),
            "captions": [f"a photo of a {token}"],
            "objects": {rare: token},
            "presence": False,
            "pasted": 8,
        },
        "// rounds": "Each round generates images, labels them, and fine-tunes. 100 images each are few, 400 many.",
        "rounds": {"num_rounds": 3, "num_images": 100, **suggested.get("rounds", {})},
        "// evaluation": 'Labelled images to measure on, if you have some: "evaluation": {"dataset": "FOLDER"}',
    }


def _label(request: Request) -> dict[str, Any]:
    """What the model's folder suggests; an outliner's weights are named there relative to that folder."""
    label = request.facts.suggested.get("label")
    if label is None:
        return {}
    outline = dict(label.get("outline", {}))
    if "model" in outline:
        outline["model"] = request.path(Path(request.model).expanduser() / outline["model"])
    return {"label": {**label, "outline": outline} if outline else label}


def concept_config(request: Request) -> dict[str, Any]:
    """A config of `diffugen learn`.

    Raises:
        UserError: there is no start word.
    """
    assert request.photos is not None
    if request.start_word is None:
        raise _no_start_word(request)
    return {
        "//": "Config of `diffugen learn`. Keys that begin with // are comments.",
        **_model(request),
        "// concept": f"{_photos(request.photos)} teach the model a word for the object. After learning look at "
        "samples.png: if it does not show the object, try more steps or another initializer_word.",
        "concept": _concept(request),
        "seed": 0,
    }


def dataset_config(request: Request) -> dict[str, Any]:
    """A config of `diffugen generate`."""
    return {
        "//": "Config of `diffugen generate`. Keys that begin with // are comments.",
        "num_images": 24,
        "classes": list(request.classes),
        **_model(request),
        "// prompts": "Words in {rare} and {common} are labelled, other slots vary the scene.",
        "prompts": _prompts(request, {request.classes[0]: [words_of(request.classes[0], {})]}),
        **_generate(request),
        "seed": 0,
    }


def with_common_classes(classes: Sequence[str], known: Sequence[str], facts: ModelFacts) -> list[str]:
    """The classes, and a few common ones that the weights and the model know, where only the object is given."""
    if len(classes) > 1:
        return list(classes)
    drawable = [name for name in known if facts.draws(name) and kind_of(name) != kind_of(classes[0])]
    usual = [name for name in ("car", "person", "tent") if name in drawable]
    return [*classes, *[*usual, *(name for name in drawable if name not in usual)][:NUM_COMMON]]


def _spoken(class_name: str) -> str:
    """A class in words, by which names that differ in hyphens and capitals are one."""
    return words_of(class_name, {}).lower()


def _no_start_word(request: Request) -> UserError:
    what = request.classes[0]
    return UserError(f"the model does not know {what!r}; give a word for something similar with --word")


def as_text(values: Mapping[str, Any]) -> str:
    """JSON in which short groups and lists stand on one line."""
    return _text(values, 0) + "\n"


def _model(request: Request) -> dict[str, Any]:
    facts, local = request.facts, Path(request.model).expanduser()
    side = f", made for {facts.side}x{facts.side} pixels" if facts.side else ""
    about = f"{facts.kind}{side}." if facts.kind else "What it is shows when it is loaded."
    half = {"dtype": "float16"} if shutil.which("nvidia-smi") else {}
    return {
        "// model": f"{about} dtype float16 halves the memory on a GPU.",
        "model": {"path": request.path(local) if local.exists() else request.model, **half},
    }


def _concept(request: Request) -> dict[str, Any]:
    assert request.photos is not None
    suggested = dict(request.facts.suggested.get("concept", {"steps": 1000}))
    photos = {"photos": request.path(request.photos), "placeholder_token": request.token}
    start = {} if request.start_word is None else {"initializer_word": request.start_word}
    return {**photos, **suggested, **start}


def _unset(request: Request) -> str:
    return "." if request.start_word else "; as it is unset, the loop takes the class of the weights that suits them."


def _prompts(request: Request, rare: dict[str, list[str]]) -> dict[str, Any]:
    objects = {"rare": rare}
    if len(request.classes) > 1:
        objects["common"] = {name: [words_of(name, {})] for name in request.classes[1:]}
    usual = {
        "templates": {
            "a photo of a {rare} {place} {time}": 5,
            "a photo of a {rare} and a {common} {place}": 3,
            "a photo of a {common} {place} {time}": 2,
            "a photo of a {other} {place} {time}": 2,
        },
        "attributes": {slot: list(values) for slot, values in DEFAULT_ATTRIBUTES.items()},
    }
    prompts = dict(request.facts.suggested.get("prompts", usual))
    others = {"other": request.others} if request.others else {}
    filled = [slot for slot in ("common", "other") if slot in {**objects, **others}]
    templates = {
        text: weight
        for text, weight in prompts["templates"].items()
        if not any(f"{{{slot}}}" in text for slot in ("common", "other") if slot not in filled)
    }
    for slot in filled:
        if not any(f"{{{slot}}}" in text for text in templates):
            templates[f"a photo of a {{{slot}}}"] = 2
    if not filled:
        templates["a photo {place} {time}"] = 2
    attributes = {**prompts.get("attributes", {}), **others}
    return {"objects": objects, **prompts, "templates": templates, "attributes": attributes}


def _generate(request: Request) -> dict[str, Any]:
    settings = request.facts.suggested.get("generate", {"num_inference_steps": 30, "batch_size": 4})
    return {"// generate": "The images' size is the model's.", "generate": settings}


def _photos(folder: Path) -> str:
    """How many photos there are, of which formats and sizes.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    paths = list_images(folder, what="PHOTOS", captions=True)
    formats = Counter(path.suffix.lstrip(".").lower() for path in paths)
    sides = [read_image(path, "photo").shape[1::-1] for path in paths]
    areas = sorted(sides, key=lambda size: size[0] * size[1])
    sizes = f", {_size(areas[0])}" + (f" to {_size(areas[-1])}" if areas[0] != areas[-1] else "")
    return f"{len(paths)} photo{'s' * (len(paths) > 1)} ({', '.join(sorted(formats))}{sizes})"


def _size(size_wh: Sequence[int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _text(value: Any, indent: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    plain = not isinstance(value, dict | list)
    if plain or (indent and len(line) + indent <= WIDTH and not (isinstance(value, dict) and len(value) > 6)):
        return line
    space = " " * (indent + 2)
    if isinstance(value, dict):
        rows = [f"{space}{json.dumps(name)}: {_text(item, indent + 2)}" for name, item in value.items()]
    else:
        rows = [space + _text(item, indent + 2) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(rows) + f"\n{' ' * indent}{closing}"
