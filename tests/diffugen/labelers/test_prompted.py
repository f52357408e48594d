"""A network's classes become those of the dataset, by what the prompt asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from diffugen.config.dataset import LabelModelConfig
from diffugen.detector.model import new_detector, save_detector
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.labelers.prompted import PromptedLabeler, load_label_model
from diffugen.prompts.prompt import ObjectPhrase, Prompt

IMAGE = np.zeros((8, 8, 3), np.uint8)


class Finds:
    """A network that finds these of its classes car, bus and dog in every image."""

    name = "detector"

    def __init__(self, *class_ids: int) -> None:
        self.found = Instances.from_masks(np.ones((len(class_ids), 8, 8), bool), class_ids)

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        return [self.found for _ in inputs]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(["suv"], ["suv", "bus"]), (["bus"], ["car", "bus"]), (["sedan", "bus"], ["sedan", "bus"]), ([], ["car", "bus"])],
)
def test_the_prompt_says_which_of_several_classes_an_object_is(asked: list[str], expected: list[str]) -> None:
    names = ["sedan", "suv", "car", "bus"]
    labeler = PromptedLabeler(Finds(0, 1, 2), ["car", "bus", "dog"], names, {"sedan": ("car",), "suv": ("car", "van")})
    prompt = Prompt("", tuple(ObjectPhrase(name, name) for name in asked))
    [instances] = labeler.label([LabelInput(IMAGE, prompt)])
    assert [names[class_id] for class_id in instances.class_ids] == expected
    assert labeler.name == "detector"


def test_a_class_that_the_network_cannot_find_is_named(tmp_path: Path) -> None:
    save_detector(new_detector(["car", "bus"]), tmp_path / "seg.safetensors")
    config = LabelModelConfig(weights=str(tmp_path / "seg.safetensors"), class_map={"suv": ("car",)})
    labeler = load_label_model(config, ["suv", "piano"], ["suv"], "cpu")
    [instances] = labeler.label([LabelInput(IMAGE)])
    assert len(instances) == 0
    with pytest.raises(UserError, match="no class 'piano', but prompts ask for 'piano'; .*car, bus.*by attention"):
        load_label_model(config, ["suv", "piano"], ["suv", "piano"], "cpu")
    with pytest.raises(UserError, match="gone.pt do not exist"):
        load_label_model(LabelModelConfig(weights="gone.pt"), ["car"], ["car"], "cpu")
