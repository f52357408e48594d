"""Which images are evidence, and of what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from round_samples import loop_config

from bootstrap.held_out import is_negative, source_of


def test_an_inpainted_image_that_still_shows_the_object_is_no_image_without_it(
    tmp_path: Path, make_samples: Callable
) -> None:
    """Its prompt names what was repainted alone."""
    car, both, rejected = make_samples(tmp_path, [[1], [0, 1], [1]], rejected={2: "low_iou:car"})
    repainted = replace(both, task="inpaint", prompt=car.prompt)
    config = loop_config()
    assert is_negative(car, config) and not is_negative(repainted, config)
    assert not is_negative(rejected, config) and not is_negative(replace(car, task="photo"), config)


@pytest.mark.parametrize(
    ("attributes", "source"),
    [
        ({"other": "bench", "time": "at night"}, "other"),
        ({"other": ""}, "generated"),
        ({"time": "at night"}, "generated"),
    ],
)
def test_other_things_are_those_of_their_slot_and_empty_scenes_are_none(
    attributes: dict[str, str], source: str, tmp_path: Path, make_samples: Callable
) -> None:
    (sample,) = make_samples(tmp_path, [[]])
    assert source_of(replace(sample, prompt=replace(sample.prompt, attributes=attributes))) == source
