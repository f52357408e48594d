"""Labelling a round: every labeler's word is kept, and the filter decides."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from round_samples import SIZE_HW, loop_config, make_generated, make_instances

from bootstrap.judging import judge_images
from bootstrap.labelers import MirroredLabeler, label_samples
from diffugen.generation.background import in_background
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput, label_input
from diffugen.sample import EncodedInstances, Sample


@dataclass
class BrightSide:
    """Labels the brighter half of an image as a piano."""

    name: str = "detector"

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        labels = []
        for item in inputs:
            half = item.image.shape[1] // 2
            masks = np.zeros((1, *item.image.shape[:2]), bool)
            brighter_left = item.image[:, :half].mean() > item.image[:, half:].mean()
            masks[0, :, slice(0, half) if brighter_left else slice(half, None)] = True
            labels.append(Instances.from_masks(masks, [0], [0.9]))
        return labels


def test_a_mirrored_view_gives_the_same_labels_for_a_labeler_without_a_preferred_side() -> None:
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    image[:, :20] = 200
    inputs = [LabelInput(image)]
    plain, mirrored = BrightSide().label(inputs)[0], MirroredLabeler(BrightSide()).label(inputs)[0]
    np.testing.assert_array_equal(mirrored.masks, plain.masks)
    np.testing.assert_array_equal(mirrored.xyxy, plain.xyxy)


def test_the_labels_of_every_labeler_are_kept(tmp_path: Path) -> None:
    records = [make_generated(tmp_path, number, [0]) for number in range(3)]
    labels = label_samples(records, {"detector": BrightSide(), "flipped": MirroredLabeler(BrightSide())}, "labelling")
    assert [set(entry) for entry in labels] == [{"detector", "flipped"}] * 3
    assert Instances.from_json(labels[0]["detector"]).size_hw == SIZE_HW


def test_images_are_labelled_while_the_next_are_generated(tmp_path: Path) -> None:
    """Inside the block the first image's labels appear; afterwards it is not labelled again."""
    first, second = (make_generated(tmp_path, number, [0]) for number in range(2))
    asked: list[int] = []
    labelled = threading.Event()

    class Counting(BrightSide):
        def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
            asked.append(len(inputs))
            labelled.set()
            return super().label(inputs)

    def label_one(sample: Sample) -> dict[str, EncodedInstances]:
        return {"detector": Counting().label([label_input(sample)])[0].to_json()}

    with in_background(label_one) as (submit, found):
        submit(first)
        assert labelled.wait(timeout=60)  # the block, where images are generated, has not ended
    assert set(found) == {first.name}
    labels = label_samples([first, second], {"detector": Counting()}, "labelling", found)
    assert asked == [1, 1] and labels[0] == found[first.name]
    assert labels == label_samples([first, second], {"detector": BrightSide()}, "labelling")


def test_errors_of_the_background_are_raised(tmp_path: Path) -> None:
    sample = make_generated(tmp_path, 0, [0])
    assert sample.heatmap_path is not None
    sample.heatmap_path.unlink()
    with pytest.raises(FileNotFoundError), in_background(label_input) as (submit, _):
        submit(sample)


def test_a_kept_image_has_the_labels_that_all_share(tmp_path: Path) -> None:
    records = [make_generated(tmp_path, number, [0]) for number in range(4)]
    labels = [{name: make_instances([0]).to_json() for name in ("attention", "detector")}] * 4
    samples = judge_images(records, labels, loop_config({}))
    assert {sample.labeler for sample in samples} == {"consensus"}
    assert all(sample.kept and sample.agreement == 1.0 and sample.class_ids == [0] for sample in samples)


def test_attention_may_decide_and_agreed_photos_have_the_labels_that_all_share(tmp_path: Path) -> None:
    """The detector finds a car too many in each: no photo is lost by that."""
    labels = {"attention": make_instances([0]).to_json(), "detector": make_instances([0, 1]).to_json()}
    drawn, low = (make_generated(tmp_path, number, [0]) for number in range(2))
    photo = replace(drawn, task="photo")
    dim = {**labels, "attention": {**labels["attention"], "scores": [0.1]}}
    config = loop_config({"filter": {"by": "attention"}})
    samples = judge_images([drawn, photo, low], [labels, labels, dim], config)
    assert [(sample.outcome, sample.labeler) for sample in samples] == [
        ("keep", "attention"),
        ("keep", "attention"),
        ("reject", "attention"),
    ]
    assert samples[0].class_ids == [0] and samples[0].agreement == 0.5
    agreed = {name: make_instances([0]).to_json() for name in labels}
    samples = judge_images([drawn, photo], [agreed] * 2, config)
    assert [sample.labeler for sample in samples] == ["attention", "consensus"]


def test_the_predecessor_checks_but_masks_are_cut_without_it(tmp_path: Path) -> None:
    labels = {name: make_instances([0]).to_json() for name in ("attention", "detector")}
    before = Instances.from_masks(np.roll(make_instances([0]).masks, 1, axis=2), [0], [0.9]).to_json()
    record = make_generated(tmp_path, 0, [0])
    with_it, without = (
        judge_images([record], [found], loop_config())[0] for found in ({**labels, "previous": before}, labels)
    )
    assert with_it.labeler == "consensus" and with_it.encoded == without.encoded


def test_a_rare_object_that_no_prompt_asked_for_is_not_believed(tmp_path: Path) -> None:
    """Else what is taken for it would be rejected, and taken for it by the next detector as well."""
    both = make_instances([0, 1])
    labels = {"attention": both.subset([1]).to_json(), "detector": both.to_json()}
    drawn = make_generated(tmp_path, 0, [1])
    (sample,) = judge_images([drawn], [labels], loop_config())
    assert sample.kept and sample.class_ids == [1] and sample.encoded_labels["detector"] == labels["detector"]
    (photo,) = judge_images([replace(drawn, task="photo")], [labels], loop_config({"filter": {"by": "agreement"}}))
    assert photo.reason == "detector_too_many:piano", "a photo may show it"


def test_no_object_of_a_kept_image_loses_its_label(tmp_path: Path) -> None:
    """Two that overlap too little for one cut, but enough for the filter as it is set here."""
    bars = [make_instances([0]), Instances.from_masks(np.roll(make_instances([0]).masks, 8, axis=2), [0], [0.9])]
    labels = {name: bar.to_json() for name, bar in zip(("attention", "detector"), bars, strict=True)}
    (sample,) = judge_images([make_generated(tmp_path, 0, [0])], [labels], loop_config({"filter": {"min_iou": 0.1}}))
    assert sample.kept and sample.labeler == "detector" and sample.class_ids == [0]


def test_what_is_not_kept_has_the_detectors_labels(tmp_path: Path) -> None:
    labels = {"attention": make_instances([0]).to_json(), "detector": make_instances([0, 1]).to_json()}
    (sample,) = judge_images([make_generated(tmp_path, 0, [0])], [labels], loop_config())
    assert sample.outcome == "reject" and sample.labeler == "detector" and sample.class_ids == [0, 1]


def test_attention_alone_is_judged_by_its_scores(tmp_path: Path) -> None:
    records = [make_generated(tmp_path, number, class_ids) for number, class_ids in enumerate([[0], [0, 1]])]
    labels = [{"attention": make_instances([0]).to_json()}] * 2
    samples = judge_images(records, labels, loop_config())
    assert [(sample.outcome, sample.reason) for sample in samples] == [("keep", ""), ("reject", "too_few:car")]


@pytest.mark.parametrize("labelers", [("attention",), ("attention", "detector")])
@pytest.mark.parametrize("task", ["txt2img", "photo"])
def test_an_image_of_one_colour_is_rejected(tmp_path: Path, labelers: tuple[str, ...], task: str) -> None:
    sample = replace(make_generated(tmp_path, 0, [0]), task=task)
    write_png(sample.image_path, np.full((*SIZE_HW, 3), (0, 90, 7), np.uint8))
    labels = [{name: make_instances([0]).to_json() for name in labelers}]
    (judged,) = judge_images([sample], labels, loop_config())
    assert (judged.outcome, judged.reason, judged.split) == ("reject", "blank", "")
