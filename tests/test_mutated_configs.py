"""Mutated configs and odd overrides of all three commands: accepted, or refused in sentences."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_fuzzing import CLASS_NAMES, VALID, anything, mutating
from hypothesis import given
from hypothesis import strategies as st

from diffugen.config.dataset import DatasetConfig
from diffugen.config.jobs import load_jobs
from diffugen.config.loader import load_config, uncommented
from diffugen.errors import UserError
from textual_inversion.config import ConceptRunConfig
from train_loop import RunConfig, load_run_config

LOOPS = ("demo", "plain-word", "grand-piano-sd15")
DATASETS = ("generate", "img2img", "inpaint")
FIRST_RELEASE = {
    "dataset_name": "cars",
    "image_size": {"width": 64, "height": 64},
    "dataset_classes": ["car"],
    "label_model": {"type": "YOLOSeg", "weights": "seg.pt"},
    "unsupervised": False,
    "dataset_to_model_class_map": {"car": "car"},
    "txt2img": {
        "stable_diffusion_model": "somebody/some_model",
        "seed_range": {"min": 1, "max": 9},
        "object_names": ["car"],
        "prompts": ["a {view_point} view of a {object_name}"],
        "view_points": ["front"],
        "textual_inversion": {"weights": "x.pt", "keyword": "car"},
    },
    "img2img": {"source_dataset": "x", "times_of_day": ["night"]},
    "inpaint": {"car": ["bus"]},
}
NAMES = ["seed", "classes", "model.path", "prompts.objects.rare", "rounds.variations.0.kind", "concept.0.steps"]
NAMES += ["generate.attention.blocks", "label", "pool", "txt2img.prompts", "task.kind", "0", "$schema", "// x"]


ROOT = Path(__file__).parents[1]
BASES: dict[str, list[dict[str, Any]]] = {
    "loop": [
        VALID[RunConfig],
        *(uncommented(json.loads((ROOT / f"configs/{name}.json").read_text())) for name in LOOPS),
    ],
    "concept": [VALID[ConceptRunConfig]],
    "dataset": [
        VALID[DatasetConfig],
        *(uncommented(json.loads((ROOT / f"configs/{name}.json").read_text())) for name in DATASETS),
        FIRST_RELEASE,
    ],
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every group and list with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def mutated(draw: st.DrawFn, kind: str) -> str:
    """A config with a few changes anywhere: values of other kinds, keys renamed, doubled, moved or gone."""
    values: Any = copy.deepcopy(draw(st.sampled_from(BASES[kind])))
    for _ in range(draw(st.integers(1, 4))):
        if not (every := list(places(values))):
            break
        owner, key = every[draw(st.integers(0, len(every) - 1))]
        change = draw(st.sampled_from(["replace", "replace", "remove", "rename", "copy", "nest", "text"]))
        if change == "replace":
            owner[key] = draw(anything)
        elif change == "remove":
            del owner[key]
        elif change == "rename" and isinstance(owner, dict):
            owner[draw(st.sampled_from(NAMES) | st.text(max_size=5))] = owner.pop(key)
        elif change == "copy":
            other, there = every[draw(st.integers(0, len(every) - 1))]
            owner[key] = copy.deepcopy(other[there]) if there in (other if isinstance(other, dict) else ()) else None
        elif change == "nest":
            owner[key] = draw(st.sampled_from([[owner[key]], {"kind": owner[key]}, {str(key): owner[key]}]))
        else:
            owner[key] = draw(st.text(max_size=20))
    return json.dumps(values)


@pytest.mark.parametrize("kind", BASES)
@mutating
@given(data=st.data())
def test_mutated_configs_are_accepted_or_refused_in_sentences(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """Read and checked as the commands do it, but for what needs the model."""
    path = tmp_path / "config.json"
    path.write_text(data.draw(mutated(kind)), encoding="utf-8", errors="surrogatepass")
    override = data.draw(st.none() | st.builds("{}={}".format, st.sampled_from(NAMES), st.text(max_size=6)))
    check_refused(kind, path, [] if override is None else [override])


def check_refused(kind: str, path: Path, overrides: list[str]) -> None:
    """Read a config as the command does; where it is refused, the sentences are short and name no class of ours."""
    try:
        if kind == "loop":
            load_run_config(path, overrides)
        elif kind == "concept":
            load_config(path, ConceptRunConfig, overrides)
        else:
            load_jobs(path, overrides)
    except UserError as error:
        for line in getattr(error, "mistakes", (str(error),)):
            assert len(line) < 1000 and not CLASS_NAMES.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", line)), line


keys = st.lists(st.sampled_from(NAMES) | st.text(max_size=6) | st.integers(0, 9).map(str), min_size=1, max_size=3)
odd_values = st.sampled_from(["1" * 5000, "[" * 100_000, "NaN", "-Infinity", '{"a": 1, "a": 2}', '"\\ud800"', "", "~x"])
overrides = st.builds(
    "{}{}".format, keys.map(".".join), (st.text(max_size=6) | anything.map(json.dumps) | odd_values).map("={}".format)
)


@pytest.mark.parametrize("kind", BASES)
@mutating
@given(data=st.data())
def test_any_overrides_are_accepted_or_refused_in_sentences(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data.draw(st.sampled_from(BASES[kind]))), encoding="utf-8")
    check_refused(kind, path, data.draw(st.lists(overrides, min_size=1, max_size=3)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"num_images": ' + "1" * 5000 + "}", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"model": {"path": "' + "x" * 5000 + '"}}', "setting 'prompts' is missing"),
        ('{"model": {"path": "~nobody-of-this-name/model"}}', "setting 'model.path'"),
        (
            '{"model": {"path": "m", "lora": "' + "x" * 5000 + '"}}',
            "setting 'model.lora'.* is no path",
        ),
        ('{"model": {"path": "m", "lora": "~nobody-of-this-name/lora"}}', "setting 'model.lora'"),
        ('{"model": {"path": "./\\u0000"}}', "setting 'model.path'"),
        ('{"model": {"model.path": "m"}}', "unknown setting 'model.model.path'"),
    ],
    ids=[
        "huge number",
        "deep",
        "long path",
        "long file",
        "unknown home",
        "unknown home of a file",
        "null byte",
        "dotted key",
    ],
)
def test_strange_values_are_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_config(tmp_path / "config.json", DatasetConfig)
