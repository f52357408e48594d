"""Pasting photos' objects onto generated images: labels are what the pixels show, images follow from seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from round_samples import CLASSES, SIZE_HW, loop_config

from bootstrap.context import RoundContext
from bootstrap.pasting import MIN_VISIBLE, Paste, paste, plan_pastes
from bootstrap.run_folder import RunFolder
from bootstrap.training_set import write_training_set, written
from diffugen.datasets.folder import read_dataset, write_dataset
from diffugen.errors import UserError
from diffugen.generation.sources import read_sources
from diffugen.instances import Instances
from diffugen.sample import Sample, write_samples

PIANO, CAR = 0, 1
RED, GREY = (200, 10, 10), (90, 90, 90)


def drawn(name: str, boxes: Sequence[tuple[int, int, int, int]], class_ids: Sequence[int], task: str) -> Sample:
    """Red rectangles (x1, y1, x2, y2) on grey; those of a photo are of another size than a generated image."""
    size_hw = (60, 80) if task == "photo" else SIZE_HW
    masks = np.zeros((len(boxes), *size_hw), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    image = np.where(masks.any(0)[..., None], RED if task == "photo" else (10, 10, 200), GREY).astype(np.uint8)
    instances = Instances.from_masks(masks, class_ids, [0.75] * len(boxes))
    return replace(Sample.labelled(name, image, instances, "train"), task=task, labeler="consensus")


def is_red(image: np.ndarray) -> np.ndarray:
    return (image[..., 0] > 145) & (image[..., 2] < 50)


@pytest.mark.parametrize("seed", range(8))
def test_the_label_is_where_the_object_is(seed: int) -> None:
    photo = drawn("p", [(20, 10, 50, 40), (60, 10, 70, 20)], [PIANO, CAR], "photo")
    scene = drawn("s", [(2, 2, 14, 14)], [CAR], "txt2img")
    made = paste(scene, photo, {PIANO}, np.random.default_rng(seed))
    assert made is not None
    image, found = made
    assert image.shape == (*SIZE_HW, 3) and found.class_ids.tolist() == [CAR, PIANO]
    assert found.scores.tolist() == [0.75, 0.75]
    differs = is_red(image) ^ found.masks[1]
    assert differs.sum() <= 2 * sum(found.masks[1].any(axis).sum() for axis in (0, 1))  # the blurred edge
    assert not (found.masks[0] & found.masks[1]).any()
    assert found.masks[0].sum() >= MIN_VISIBLE * 144
    assert (image[~is_red(image) & found.masks[0]] == (10, 10, 200)).mean() > 0.5


def test_an_image_follows_from_its_seed() -> None:
    photo, scene = drawn("p", [(20, 10, 50, 40)], [PIANO], "photo"), drawn("s", [], [], "txt2img")
    pastes = [paste(scene, photo, {PIANO}, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    images = [made[0] for made in pastes if made is not None]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("seed", range(6))
def test_a_side_that_the_photo_cuts_off_stays_at_the_border(seed: int) -> None:
    photo, scene = drawn("p", [(0, 30, 30, 60)], [PIANO], "photo"), drawn("s", [], [], "txt2img")
    made = paste(scene, photo, {PIANO}, np.random.default_rng(seed))
    assert made is not None
    (mask,) = made[1].masks
    assert mask[-1].any() and (mask[:, 0].any() or mask[:, -1].any())


@pytest.mark.parametrize("seed", range(6))
def test_what_is_cut_off_at_both_sides_spans_the_scene(seed: int) -> None:
    photo, scene = drawn("p", [(0, 20, 80, 50)], [PIANO], "photo"), drawn("s", [], [], "txt2img")
    made = paste(scene, photo, {PIANO}, np.random.default_rng(seed))
    assert made is not None and made[1].masks[0].any(0).all()


@pytest.mark.parametrize(
    ("box", "others"),
    [
        ((0, 0, 80, 60), [(x, y, x + 1, y + 1) for x in (0, 63) for y in (0, 47)]),  # they would vanish
        ((20, 20, 23, 21), []),  # three pixels
    ],
)
def test_an_object_that_finds_no_place_is_left_out_and_counted(
    box: tuple[int, int, int, int], others: list[tuple[int, int, int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    photo = replace(drawn("p", [box], [PIANO], "photo"), image=np.zeros((60, 80, 3), np.uint8))
    scene = drawn("s", others, [CAR] * len(others), "txt2img")
    assert paste(scene, photo, {PIANO}, np.random.default_rng(0)) is None
    lost = Paste("p_pasted0", photo, scene, frozenset({PIANO}), 0)
    assert list(written([scene], [lost, lost])) == [scene]
    assert "2 of 2 objects of photos found no place" in caplog.text


def test_a_thin_object_is_seen_in_its_label() -> None:
    photo, scene = drawn("p", [(40, 5, 42, 55)], [PIANO], "photo"), drawn("s", [], [], "txt2img")
    for seed in range(8):
        made = paste(scene, photo, {PIANO}, np.random.default_rng(seed))
        assert made is not None
        image, found = made
        red = image[found.masks[0]][:, 0].astype(int)  # 200 in the object, 90 beside it
        assert red.min() >= 105 and red.mean() >= 120


def test_every_object_of_a_photo_meets_every_scene() -> None:
    two = drawn("p", [(5, 10, 30, 40), (45, 10, 75, 40)], [PIANO, CAR], "photo")
    photo = replace(two, image=Path("p.png"))
    scenes = [drawn(f"s{number}", [], [], "txt2img") for number in range(4)]
    met = set()
    for one in plan_pastes([photo, *scenes], [PIANO, CAR], 100, seed=0):
        rng = np.random.default_rng(one.seed)
        met.add((one.scene.name, int(rng.choice([0, 1]))))
    assert len(met) == 8


@pytest.fixture
def images(tmp_path: Path, make_samples: Callable) -> list[Sample]:
    """Of one round: a generated piano, two generated cars, a photo of a piano and one of a car."""
    made = make_samples(RunFolder(tmp_path / "run").round(0).path, [[0], [1], [1], [0], [1]])
    photos = [replace(one, task="photo") for one in made[3:]]
    return [*made[:3], *photos]


def test_each_photo_of_the_rare_object_is_pasted_onto_scenes_without_it(images: list[Sample]) -> None:
    pastes = plan_pastes(images, [PIANO], 10, seed=1)
    assert {one.photo.name for one in pastes} == {images[3].name} and len(pastes) == 10
    assert {one.scene.name for one in pastes} == {images[1].name, images[2].name}
    assert len({one.name for one in pastes}) == len({one.seed for one in pastes}) == 10
    assert plan_pastes(images, [PIANO], 10, seed=1) == pastes
    assert plan_pastes(images[:3], [PIANO], 10, seed=1) == plan_pastes(images[3:], [PIANO], 10, seed=1) == []


def test_a_round_trains_on_pasted_images_and_says_what_they_are(tmp_path: Path, images: list[Sample]) -> None:
    config = loop_config(
        pool={"folder": "unused", "captions": ["a <piano>"], "objects": {"piano": ["<piano>"]}, "pasted": 3}
    )
    run = RunFolder(tmp_path / "run")
    context = RoundContext(config, run, run.round(0), "attention", "")
    own = [replace(images[0], split="val"), *images[1:5]]
    write_samples(run.round(0).samples, own)
    dataset = write_training_set(context, own)
    trained = {name: found for name, _, found in read_dataset(dataset, "train")}
    pasted = [name for name in trained if "_pasted" in name]
    assert len(pasted) == 3 and len(trained) == 4 + 3
    assert all(PIANO in trained[name].class_ids for name in pasted)
    assert "_pasted" not in " ".join(name for name, _, _ in read_dataset(dataset, "val"))
    text = (dataset / "coco" / "train.json").read_text(encoding="utf-8")
    assert '"task": "paste"' in text and f'"photo": "{images[3].name}"' in text


def test_nothing_to_paste_is_said(tmp_path: Path, images: list[Sample], caplog: pytest.LogCaptureFixture) -> None:
    config = loop_config(
        pool={"folder": "unused", "captions": ["a <piano>"], "objects": {"piano": ["<piano>"]}, "pasted": 3}
    )
    run = RunFolder(tmp_path / "run")
    own = [replace(images[0], split="val"), *images[1:3]]
    write_samples(run.round(0).samples, own)
    write_training_set(RoundContext(config, run, run.round(0), "attention", ""), own)
    assert "round 0: nothing is pasted" in caplog.text


def test_a_run_with_pasted_images_is_a_source_of_variations(tmp_path: Path, images: list[Sample]) -> None:
    """Nobody prompted them: they are captioned by their labels."""
    photo, scene = images[3], images[1]
    pasted = Paste("p_pasted0", photo, scene, frozenset({PIANO}), 0).sample()
    assert pasted is not None
    write_dataset(tmp_path / "data", [pasted], CLASSES)
    (source,), _ = read_sources(tmp_path / "data", {})
    assert "piano" in source.prompt.text and source.prompt.objects


def test_pasting_needs_prompts_without_the_rare_object() -> None:
    prompts = {"templates": ["a photo of a {rare}"], "objects": {"rare": {"piano": ["<piano>"]}}}
    pool = {"folder": "unused", "captions": ["a <piano>"], "objects": {"piano": ["<piano>"]}, "pasted": 3}
    with pytest.raises(UserError, match="'pool.pasted' needs generated images without a rare object"):
        loop_config(prompts=prompts, classes=CLASSES[:1], pool=pool)
    assert loop_config(pool=pool).pool is not None
