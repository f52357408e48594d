"""What a round trains on: images with labels of their own join, and its dataset is a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from round_samples import CLASSES, make_instances

from bootstrap.run_folder import RunFolder
from bootstrap.training_set import import_labelled, labelled_samples
from diffugen.config.dataset import Img2ImgConfig
from diffugen.config.loader import validate
from diffugen.config.settings import PromptsConfig
from diffugen.datasets.folder import read_dataset, write_dataset
from diffugen.generation.sources import read_sources
from diffugen.generation.variations import plan_variations
from diffugen.prompts.prompt import ObjectPhrase, fill_template
from diffugen.sample import Sample


def test_a_rounds_dataset_is_a_source_of_variations(tmp_path: Path, make_samples: Callable) -> None:
    """All that is known of a prompt comes through; a photo is captioned by its classes, whatever it was read by."""
    folder = RunFolder(tmp_path / "run").round(0)
    generated, photo = make_samples(folder.path, [[0], [1]])
    by_day = fill_template("a {rare} {time}", (ObjectPhrase("<piano>", "piano"),), {"time": "by day"}, "text")
    samples = [
        replace(generated, prompt=by_day, provenance={"model": "m"}),
        replace(photo, task="photo", provenance={"captions": ["a photo of a bench"]}),
    ]
    write_dataset(folder.dataset, samples, CLASSES)
    sources, names = read_sources(folder.path, {"car": "blue car"})
    assert [source.name for source in sources] == ["r00_000000", "r00_000001"]
    assert sources[0].prompt == by_day
    assert sources[0].provenance.items() >= {"seed": 0, "task": "txt2img", "labeler": "attention", "model": "m"}.items()
    prompts = {"templates": [{"text": "{source} {time}"}], "attributes": {"time": ["at night"]}}
    task = Img2ImgConfig(kind="img2img", source=folder.path)
    variations = plan_variations(sources, names, task, validate(prompts, PromptsConfig), size_hw=(48, 64))
    assert [item.prompt.text for item in variations] == ["a <piano> at night", "a photo of a blue car at night"]
    assert variations[0].provenance["parent"] == {
        "name": "r00_000000",
        "split": "train",
        "prompt": by_day.text,
        "seed": 0,
    }


def test_labelled_images_join_every_round_under_the_runs_class_ids(tmp_path: Path, make_samples: Callable) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    items = [Sample.labelled("a", image, make_instances([0, 2, 1]), "train")]
    write_dataset(tmp_path / "theirs", items, ["car", "harp", "piano"])
    run = RunFolder(tmp_path / "run")
    for index in range(2):
        import_labelled(tmp_path / "theirs", CLASSES, run)
        folder = run.round(index)
        own = make_samples(folder.path, [[0]])
        write_dataset(folder.dataset, [*own, *labelled_samples(run.labelled, CLASSES)], CLASSES)
        found = {name: instances for name, _, instances in read_dataset(folder.dataset, "train")}
        assert found["given_a"].class_ids.tolist() == [1, 0]  # the harp is none of the run's classes
        stored = run.labelled / "images" / "train" / "given_a.png"
        assert (folder.dataset / "images" / "train" / "given_a.png").samefile(stored)
