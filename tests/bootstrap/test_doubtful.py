"""Photos that nobody described are grey where labelers disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from round_samples import SIZE_HW, loop_config, make_instances

from bootstrap.doubtful import GREY, MOSTLY_DOUBTFUL, doubtful_boxes, without_doubtful
from bootstrap.judging import judge_images
from bootstrap.training_set import choose_validation
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Decision, Sample

OBJECTS = make_instances([0, 1, 1])
"""Bars side by side, from x = 4, 24 and 44 on."""


def photo(name: str = "photo", kept: tuple[int, ...] = (0, 1, 2), mirrored: tuple[int, ...] = (0, 1, 2)) -> Sample:
    labels = {"detector": OBJECTS.to_json(), "flipped": OBJECTS.subset(list(mirrored)).to_json()}
    return Sample(
        name,
        np.full((*SIZE_HW, 3), 200, np.uint8),
        task="photo",
        split="train",
        encoded=OBJECTS.subset(list(kept)).to_json(),
        labeler="consensus",
        decision=Decision(labels=labels),
    )


def test_where_all_agree_the_photo_is_as_it_was() -> None:
    sample = photo()
    assert without_doubtful(sample) is sample and len(doubtful_boxes(sample)) == 0


def test_what_only_some_see_is_hidden_and_the_rest_is_not() -> None:
    sample = without_doubtful(photo(kept=(0, 2), mirrored=(0, 2)))
    shown = sample.pixels()
    assert sample.origin()["hidden_boxes"] == [[24, 8, 36, 40]]
    assert (shown[8:40, 24:36] == GREY).all()
    hidden = (shown == GREY).all(axis=2)
    assert hidden.sum() == 32 * 12, "nothing else"


def test_parts_of_a_label_are_not_doubtful() -> None:
    part = OBJECTS.masks[:1].copy()
    part[0, 20:] = False  # IoU below 0.3 with the whole
    labels = {"detector": OBJECTS.to_json(), "mask2former": Instances.from_masks(part, [1]).to_json()}
    sample = replace(photo(), decision=Decision(labels=labels))
    assert without_doubtful(sample) is sample


def test_what_a_detector_of_a_fold_does_not_see_is_doubtful() -> None:
    config = loop_config(model=None, prompts=None, pool={"folder": "unused"})
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
    sample = replace(photo(), image=noise, encoded=None, decision=Decision())
    labels = {name: OBJECTS.to_json() for name in ("detector", "flipped", "fold0", "fold1")}
    (judged,) = judge_images([sample], [labels | {"fold2": OBJECTS.subset([0, 2]).to_json()}], config)
    assert judged.kept and len(judged.instances) == 2
    assert np.unique(doubtful_boxes(judged), axis=0).tolist() == [[24, 8, 36, 40]]


def test_a_photo_that_would_be_mostly_grey_is_for_review() -> None:
    everything = Instances.from_masks(np.ones((1, *SIZE_HW), bool), [1], [0.9])
    one = OBJECTS.subset([0])
    both = Instances.concatenate([one, everything])
    config = loop_config(model=None, prompts=None, pool={"folder": "unused"})
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
    sample = replace(photo(), image=noise, encoded=None, decision=None)
    (judged,) = judge_images([sample], [{"detector": both.to_json(), "flipped": one.to_json()}], config)
    assert (judged.outcome, judged.reason) == ("review", MOSTLY_DOUBTFUL) and not judged.split
    (judged,) = judge_images([sample], [{"detector": one.to_json(), "flipped": one.to_json()}], config)
    assert judged.kept


def test_labels_own_pixels_stay_where_boxes_overlap() -> None:
    masks = np.zeros((2, *SIZE_HW), bool)
    masks[0, 10:30, 10:30] = True
    masks[1, 5:40, 5:12] = masks[1, 35:40, 5:50] = True  # around it
    found = Instances.from_masks(masks, [0, 1])
    sample = photo()
    sample = replace(
        sample, encoded=found.subset([0]).to_json(), decision=Decision(labels={"detector": found.to_json()})
    )
    shown = without_doubtful(sample).pixels()
    assert (shown[10:30, 10:30] == 200).all() and (shown[masks[1] & ~masks[0]] == GREY).all()


@pytest.mark.parametrize("change", [{"prompt": Prompt("a photo of a car")}, {"labeler": "person"}, {"task": "txt2img"}])
def test_images_that_somebody_described_are_left_alone(change: dict) -> None:
    sample = replace(photo(kept=(0,)), **change)
    assert without_doubtful(sample) is sample


def test_validation_has_no_photo_with_something_doubtful() -> None:
    partly = [photo(f"partly{number}", kept=(0,)) for number in range(6)]
    chosen = choose_validation([*partly, photo("a"), photo("b")], [0], 0.5, seed=0)
    assert {sample.name for sample in chosen if sample.split == "val"} <= {"a", "b"}
    with pytest.raises(UserError, match="kept 1 of 7 photos with a rare object and without one that only some"):
        choose_validation([*partly, photo("a")], [0], 0.5, seed=0)
