"""The sample: its labels, its origin as datasets record it, its lines in samples.jsonl."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffugen.files import write_jsonl
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import Decision, Sample, read_samples, write_samples

PROMPT = Prompt("a car at night", (ObjectPhrase("car", "car"),), {"time": "at night"}, "a {x} {time}", "rain")


@pytest.fixture
def instances() -> Instances:
    masks = np.zeros((2, 8, 12), bool)
    masks[0, 2:5, 1:6] = masks[1, 1:8, 7:11] = True
    return Instances.from_masks(masks, [1, 0], [0.5, 0.25])


@pytest.fixture
def generated(tmp_path: Path, instances: Instances) -> Sample:
    return Sample(
        name="r00_000007",
        image=tmp_path / "images" / "000007.png",
        prompt=PROMPT,
        seed=7,
        task="txt2img",
        split="train",
        encoded=instances.to_json(),
        labeler="attention",
        provenance={"model": "m"},
        heatmap_path=tmp_path / "heatmaps" / "000007.npz",
    )


def decided(sample: Sample, *, reason: str, review: bool) -> Sample:
    labels = {"attention": sample.encoded or {}}
    return replace(sample, reason=reason, decision=Decision(review=review, agreement=0.5, labels=labels))


def test_samples_come_back_from_their_file(tmp_path: Path, generated: Sample) -> None:
    samples = [
        generated,
        replace(generated, reason="no car", split=""),
        decided(generated, reason="", review=False),
        decided(generated, reason="low_iou:car", review=True),
        replace(generated, encoded=None, heatmap_path=None),
    ]
    write_samples(tmp_path / "samples.jsonl", samples)
    assert read_samples(tmp_path / "samples.jsonl") == samples
    assert [sample.outcome for sample in samples] == ["keep", "reject", "keep", "review", "keep"]


def test_labels_are_decoded_when_they_are_asked_for(generated: Sample, instances: Instances) -> None:
    np.testing.assert_array_equal(generated.instances.masks, instances.masks)
    assert (generated.class_ids, generated.scores, generated.size_hw) == ([1, 0], [0.5, 0.25], (8, 12))
    known = decided(generated, reason="", review=False)
    np.testing.assert_array_equal(known.labels("attention").masks, instances.masks)
    assert generated.encoded_labels == {} and generated.agreement is None
    with pytest.raises(ValueError, match="r00_000007 .* is not labelled"):
        _ = replace(generated, encoded=None).instances


def test_lines_of_the_first_version_are_read(tmp_path: Path, generated: Sample) -> None:
    """`diffugen generate` wrote an id, and no split; the loop wrote an id and a name."""
    line = {"id": "000007", **generated.to_json()}
    del line["name"], line["split"]
    decision = {"outcome": "review", "reason": "low_iou:car", "agreement": 0.5, "labels": {}}
    loop_line = {"id": "000007", **generated.to_json(), **decision}
    del loop_line["kept"]
    write_jsonl(tmp_path / "samples.jsonl", [line, loop_line])
    first, second = read_samples(tmp_path / "samples.jsonl")
    assert first == replace(generated, name="000007", split="")
    assert (second.name, second.outcome, second.agreement) == ("r00_000007", "review", 0.5)


def test_the_origin_of_a_generated_image_has_its_prompt(generated: Sample) -> None:
    origin = generated.origin()
    assert (origin["prompt"], origin["seed"], origin["labeler"]) == (PROMPT.text, 7, "attention")
    assert Prompt.from_provenance(origin) == PROMPT
    assert origin["model"] == "m"


def test_a_photo_was_not_made_from_its_caption(generated: Sample) -> None:
    photo = replace(generated, task="photo", provenance={"captions": ["a car"]})
    assert "prompt" not in photo.origin() and photo.origin()["captions"] == ["a car"]
    assert Prompt.from_provenance(photo.origin()) is None


def test_what_a_dataset_knows_of_an_image_stays_as_it_is(instances: Instances) -> None:
    known = {"prompt": "theirs", "task": 3, "labeler": None}
    assert Sample.labelled("a", Path("a.png"), instances, "val", known).origin() == known
    assert Sample.labelled("a", Path("a.png"), instances, "val").origin() == {}


def test_pixels_need_no_file(instances: Instances) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    sample = Sample.labelled("a", pixels, instances, "train")
    assert sample.pixels() is pixels
    with pytest.raises(ValueError, match="sample a has no image file"):
        _ = sample.image_path
