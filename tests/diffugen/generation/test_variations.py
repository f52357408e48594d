"""Variations: which image is varied how, and with which prompt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffugen.config.dataset import Img2ImgConfig, InpaintConfig
from diffugen.config.loader import validate
from diffugen.config.settings import DatasetPromptsConfig, PromptsConfig
from diffugen.datasets.folder import write_dataset
from diffugen.errors import UserError
from diffugen.generation.sources import read_sources
from diffugen.generation.variations import Variation, cover, label_inpainted, plan_variations
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt, fill_template
from diffugen.sample import Sample

SIZE_HW = (40, 64)
RED_CAR, TENT = ObjectPhrase("red car", "car"), ObjectPhrase("tent", "tent")


def instances(*class_ids: int) -> Instances:
    """One rectangle per class id, side by side; the later the larger."""
    masks = np.zeros((len(class_ids), *SIZE_HW), bool)
    for number in range(len(class_ids)):
        masks[number, 5 : 20 + number, 4 + 20 * number : 20 + 20 * number] = True
    return Instances.from_masks(masks, class_ids)


def source(name: str, prompt: Prompt | None = None, labels: Instances | None = None, split: str = "") -> Sample:
    encoded = None if labels is None else labels.to_json()
    return Sample(name, Path(f"{name}.png"), prompt or Prompt(""), split=split, encoded=encoded)


def prompts(*texts: str, **changes: Any) -> DatasetPromptsConfig:
    return validate({"templates": [{"text": text} for text in texts], **changes}, DatasetPromptsConfig)


def img2img(**changes: Any) -> Img2ImgConfig:
    return Img2ImgConfig(kind="img2img", source=Path("s"), **changes)


def inpaint(**changes: Any) -> InpaintConfig:
    return InpaintConfig(kind="inpaint", source=Path("s"), **changes)


def plan(sources: list[Sample], task: Any, config: PromptsConfig, **options: Any) -> list[Variation]:
    return plan_variations(sources, ["car", "tent"], task, config, size_hw=(48, 80), **options)


BY_DAY = fill_template("a {x} beside a {x} {time}, {place}", (RED_CAR, TENT), {"time": "by day", "place": "in a city"})
ANYWHERE = fill_template("a {x} {place}", (TENT,), {"place": "on a beach"})


def test_attributes_are_replaced_where_the_source_has_them_and_added_elsewhere() -> None:
    config = prompts("{source} {time}, {weather}", attributes={"time": ["at night"], "weather": ["in the rain"]})
    both = plan([source("a", BY_DAY), source("b", ANYWHERE)], img2img(strength=0.5), config)
    assert [item.prompt.text for item in both] == [
        "a red car beside a tent at night, in a city, in the rain",
        "a tent on a beach at night, in the rain",
    ]
    assert both[0].prompt.objects == (RED_CAR, TENT)
    assert both[0].prompt.attributes == {"time": "at night", "place": "in a city", "weather": "in the rain"}
    assert all((item.task, item.strength, item.target) == ("img2img", 0.5, None) for item in both)


def test_a_variation_can_be_varied_again() -> None:
    config = prompts("{source} {weather}", attributes={"weather": ["in the rain"]})
    [first] = plan([source("a", BY_DAY)], img2img(), config)
    again = prompts("{source} {weather}", attributes={"weather": ["in the snow"]})
    [second] = plan([source("b", first.prompt)], img2img(), again)
    assert second.prompt.text == "a red car beside a tent by day, in a city in the snow"


def test_templates_may_say_everything_themselves() -> None:
    config = prompts("a {x} {time}", objects={"x": {"tent": ["tent"]}}, attributes={"time": ["by day", "at night"]})
    items = plan([source("photo.png"), source("other.png")], img2img(), config)
    assert {item.prompt.text for item in items} == {"a tent by day", "a tent at night"}
    assert all(item.prompt.objects == (TENT,) for item in items)


def test_a_photo_has_no_prompt_to_tell_of() -> None:
    with pytest.raises(UserError, match=r"needs the prompt of photo.png, but nobody knows it; write what"):
        plan([source("photo")], img2img(), prompts("{source} at night"))


@pytest.mark.parametrize(("num_images", "expected"), [(None, [1, 1, 1]), (2, [0, 1, 1]), (7, [2, 2, 3])])
def test_images_are_varied_equally_often(num_images: int | None, expected: list[int]) -> None:
    sources = [source(name, ANYWHERE) for name in "abc"]
    items = plan(sources, img2img(), prompts("{source}"), num_images=num_images, seed=3)
    counts = Counter(item.source.name for item in items)
    assert sorted(counts[name] for name in "abc") == expected


def test_cartesian_gives_every_image_every_combination() -> None:
    config = prompts("{source} {time}", attributes={"time": ["by day", "at night"]}, mode="cartesian")
    items = plan([source("a", ANYWHERE), source("b", ANYWHERE)], img2img(), config, num_images_per_prompt=2)
    counts = Counter((item.source.name, item.prompt.attributes["time"]) for item in items)
    assert counts == {(name, time): 2 for name in "ab" for time in ("by day", "at night")}


BUS = prompts("a {new} {source_place}", objects={"new": {"bus": ["green bus"]}})


def test_every_labelled_object_is_repainted_in_an_image_of_its_own() -> None:
    sources = [source("a", BY_DAY, instances(0, 1)), source("b", Prompt("a tent", (TENT,)), instances(1))]
    items = plan(sources, inpaint(margin_fraction=0.0), BUS)
    assert [(item.source.name, item.target) for item in items] == [("a", 0), ("a", 1), ("b", 0)]
    assert [item.prompt.text for item in items] == ["a green bus in a city", "a green bus in a city", "a green bus"]
    assert all(item.prompt.objects == (ObjectPhrase("green bus", "bus"),) for item in items)
    assert (items[1].region() == instances(0, 1).masks[1]).all()


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"target": "largest"}, [("a", 2)]),
        ({"only": ["car"]}, [("a", 0), ("a", 2)]),
        ({"only": ["tent"], "target": "largest"}, [("a", 1)]),
        ({"replace": {"tent": ["bus"]}}, [("a", 1)]),
    ],
)
def test_objects_can_be_chosen(task: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    items = plan([source("a", BY_DAY, instances(0, 1, 0))], inpaint(**task), BUS)
    assert [(item.source.name, item.target) for item in items] == expected


def test_objects_of_low_score_are_not_repainted() -> None:
    labels = Instances.from_masks(instances(0, 1).masks, [0, 1], [0.1, 0.9])
    items = plan([source("a", BY_DAY, labels)], inpaint(), BUS)
    assert [item.target for item in items] == [1]
    assert len(plan([source("a", BY_DAY, labels)], inpaint(min_score=0.0), BUS)) == 2


def test_one_object_of_each_image_by_chance() -> None:
    sources = [source(str(number), BY_DAY, instances(0, 1, 0)) for number in range(30)]
    items = plan(sources, inpaint(target="random"), BUS, seed=1)
    assert len(items) == 30
    assert {item.target for item in items} == {0, 1, 2}


def test_classes_are_replaced_by_those_named_for_them() -> None:
    config = prompts("a {new}", objects={"new": {"bus": ["bus"], "house": ["house"], "tent": ["tent"]}})
    task = inpaint(replace={"car": ["bus"], "tent": ["house", "tent"]})
    items = plan([source(str(number), BY_DAY, instances(0, 1)) for number in range(4)], task, config)
    drawn = {(item.target, item.prompt.objects[0].class_name) for item in items}
    assert drawn == {(0, "bus"), (1, "house"), (1, "tent")}


def test_an_object_is_kept_with_another_texture() -> None:
    config = prompts("a {texture} {object}", attributes={"texture": ["wooden", "golden"]}, mode="cartesian")
    items = plan([source("a", BY_DAY, instances(0, 1))], inpaint(words={"car": "sports car"}), config)
    assert [(item.prompt.text, item.prompt.objects[0]) for item in items] == [
        ("a wooden sports car", ObjectPhrase("sports car", "car")),
        ("a golden sports car", ObjectPhrase("sports car", "car")),
        ("a wooden tent", TENT),
        ("a golden tent", TENT),
    ]


def test_what_cannot_be_repainted_is_not_varied() -> None:
    assert plan([source("a", BY_DAY, instances(0))], inpaint(only=["tent"]), BUS, num_images=3) == []
    with pytest.raises(UserError, match=r"'task.source': a.png is not labelled, so there is no object to repaint"):
        plan([source("a", BY_DAY)], inpaint(), BUS)


def test_labels_are_carried_over_to_the_new_classes() -> None:
    [item] = plan([source("a", BY_DAY, instances(0, 1))], inpaint(target="largest", margin_fraction=0.0), BUS)
    attended = Instances.from_masks(item.region()[None], [1], [0.8])
    labels, found = label_inpainted(item, attended, ["car", "bus"])
    assert found
    assert labels.class_ids.tolist() == [0, 1]
    assert (labels.masks == instances(0, 1).masks).all()
    labels, _ = label_inpainted(item, Instances.from_masks(item.region()[None], [0]), ["bus"])
    assert labels.class_ids.tolist() == [0]  # cars are none of this dataset's classes


@pytest.mark.parametrize("size_hw", [(48, 80), (40, 64), (80, 40), (16, 64)])
def test_images_are_scaled_to_cover_and_cut_in_the_middle(size_hw: tuple[int, int]) -> None:
    rows, columns = np.mgrid[:40, :64]
    image = np.stack([rows * 6, columns * 4, np.zeros_like(rows)], axis=2).astype(np.uint8)
    covered = cover(image, size_hw)
    assert covered.shape == (*size_hw, 3)
    centre = covered[size_hw[0] // 2 - 1 : size_hw[0] // 2 + 1, size_hw[1] // 2 - 1 : size_hw[1] // 2 + 1]
    assert np.abs(centre.mean((0, 1)) - [19.5 * 6, 31.5 * 4, 0]).max() < 5
    assert (cover(image, (40, 64)) == image).all()


def test_what_is_loaded_fits_the_model(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels)
    masks = np.zeros((1, 45, 70), bool)
    masks[0, 10:44, 10:69] = True
    parent = Sample.labelled("a", tmp_path / "a.png", Instances.from_masks(masks, [0]), "")
    repainted = Variation(parent, ("car",), Prompt("x"), 1.0, target=0)
    image, region = repainted.load()
    assert repainted.input_hw == image.shape[:2]
    assert (image == pixels[:40, :64]).all()
    assert region is not None and (region == masks[0, :40, :64]).all()
    image, region = Variation(parent, ("car",), Prompt("x"), 0.5, size_hw=(48, 80)).load()
    assert image.shape == (48, 80, 3) and region is None


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


def test_a_dataset_tells_its_prompts_labels_and_splits(tmp_path: Path) -> None:
    items = [
        Sample.labelled("one", picture(1), instances(0, 1), "train", BY_DAY.to_provenance() | {"seed": 7}),
        Sample.labelled("two", picture(2), instances(1, 1), "val"),
        Sample.labelled("three", picture(3), instances(), "val"),
    ]
    write_dataset(tmp_path / "run" / "dataset", items, ["car", "tent"])
    (one, two, three), names = read_sources(tmp_path / "run", {"tent": "blue tent"})
    assert names == ["car", "tent"]
    assert one.prompt == BY_DAY
    assert (one.split, one.provenance["seed"]) == ("train", 7)
    assert (one.instances.masks == instances(0, 1).masks).all()
    assert (one.pixels() == picture(1)).all()
    assert (two.prompt.text, two.prompt.objects) == ("a photo of a blue tent", (ObjectPhrase("blue tent", "tent"),))
    assert (two.split, three.prompt.text, len(three.instances)) == ("val", "a photo", 0)
    assert read_sources(tmp_path / "run" / "dataset") == read_sources(tmp_path / "run")


def test_photos_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        write_png(tmp_path / name, picture(0))
    photos, class_names = read_sources(tmp_path)
    assert [(photo.name, photo.split, photo.prompt.text) for photo in photos] == [("a.png", "", ""), ("b.png", "", "")]
    assert class_names == []


def test_sources_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'task.source': .*gone does not exist; .* --set task.source=runs/first"):
        read_sources(tmp_path / "gone")
    (tmp_path / "data.yaml").write_text("names: [car]\n")
    with pytest.raises(UserError, match=r"has no coco/train.json; `diffugen export .*` writes one"):
        read_sources(tmp_path)
