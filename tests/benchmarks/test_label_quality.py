"""The ablation of attention's labels: every row of it runs."""

from __future__ import annotations

import label_quality
import numpy as np
import pytest
from label_quality import ROWS, Read, calibration_error, measure, read_images
from labelled_images import toy_images

from diffugen.config.settings import AttentionConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline


@pytest.fixture(scope="module")
def read() -> tuple[list[str], list[Read]]:
    """Class names, and two scenes with what the toy pipeline attends to."""
    names, images = toy_images("development", 0, 2)
    pipe = load_pipeline(ModelConfig(path=str(label_quality.ROOT / "diffugen/toyworld/weights/pipeline"), device="cpu"))
    settings = AttentionConfig(blocks=("down", "up"), factors=(1, 2, 4), self_attention_factor=1, presence=True)
    return list(names), read_images(pipe, list(images), settings)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_is_measured(read: tuple[list[str], list[Read]], row: label_quality.Row) -> None:
    names, images = read
    figures = measure(images, names, row)
    assert 0 < figures["mean_iou"] < 1 and figures["num_truth"] == sum(len(one.item.truth) for one in images)
    assert (figures["absent_unlabelled"] == 0) is (row.method == "paper" or row.without == "presence")


def test_scores_that_are_the_ious_are_calibrated() -> None:
    ious = np.array([0.2, 0.4, 0.9, 1.0])
    assert calibration_error(ious, ious) == pytest.approx(0)
    assert calibration_error(np.full(4, 1.0), ious) == pytest.approx(1 - ious.mean())
    assert calibration_error(np.array([0.95, 0.91]), np.array([0.85, 1.0])) == pytest.approx(0.005)
