"""The arms of the loop's benchmark: pasted cut-outs, and scenes that show what no photo shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from loop import unseen_scenes
from paste import pasted_samples

from bootstrap.config import EvaluationConfig
from diffugen.instances import Instances
from diffugen.sample import Sample


def labelled(name: str, box: tuple[slice, slice], colour: int, class_id: int) -> Sample:
    image, mask = np.full((64, 64, 3), 20, np.uint8), np.zeros((1, 64, 64), bool)
    image[box], mask[0][box] = colour, True
    return Sample.labelled(name, image, Instances.from_masks(mask, [class_id], [0.9]), "train")


def test_pasted_objects_are_labelled_where_they_are_seen() -> None:
    photo = labelled("photo", (slice(10, 30), slice(5, 45)), 250, 0)
    scene = labelled("scene", (slice(20, 60), slice(20, 60)), 100, 1)
    samples = list(pasted_samples([photo], [scene], 12, seed=0))
    assert [sample.name for sample in samples[:2]] == ["pasted_00000", "pasted_00001"]
    places = set()
    for sample in samples:
        image, found = sample.pixels(), sample.instances
        masks = dict(zip(found.class_ids.tolist(), found.masks, strict=True))
        assert not (masks[0] & masks[1]).any()
        inner = masks[0] & (image[..., 0] > 200)  # but for the blurred border
        assert inner.sum() > 0.7 * masks[0].sum() > 0
        assert (image[~masks[0]] < 200).all()
        places.add(tuple(found.xyxy[found.class_ids.tolist().index(0)]))
    assert len(places) > 6
    again = [sample.pixels() for sample in pasted_samples([photo], [scene], 12, seed=0)]
    assert all(np.array_equal(one.pixels(), other) for one, other in zip(samples, again, strict=True))


def test_an_object_that_is_covered_is_no_longer_labelled() -> None:
    photo = labelled("photo", (slice(0, 64), slice(0, 64)), 250, 0)
    scene = labelled("scene", (slice(30, 34), slice(30, 34)), 100, 1)
    found = [sample.instances.class_ids.tolist() for sample in pasted_samples([photo], [scene], 8, seed=1)]
    assert [0] in found


def test_scenes_unlike_the_photos(tmp_path: Path) -> None:
    def line(name: str, phrase: str, place: str, weather: str) -> str:
        scene = {"name": name, "phrases": [phrase], "kinds": [phrase.split()[-1]]}
        return json.dumps({**scene, "attributes": {"place": place, "weather": weather, "time": "day"}})

    lines = [
        line("usual", "red piano", "beach", "clear"),
        line("colour", "pink piano", "beach", "clear"),
        line("place", "piano", "city", "clear"),
        line("weather", "red piano", "beach", "fog"),
        line("other", "pink car", "city", "fog"),
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "data.yaml").write_text("names: [piano]\nval: images/val\n")
    evaluation = EvaluationConfig(dataset=tmp_path)
    assert unseen_scenes(evaluation, "piano", ["red", "beach", "clear"]) == {"colour", "place", "weather"}
