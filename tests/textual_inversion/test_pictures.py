"""Loss curve and sample sheet."""

import numpy as np
import pytest
from PIL import Image

from textual_inversion.pictures import draw_loss_curve, running_mean, side_by_side


def test_running_mean() -> None:
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == pytest.approx([1.0, 2.0, 4.0, 6.0])


@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.5], list(np.linspace(1, 0.1, 200))])
def test_loss_curve_of_any_length(losses: list[float]) -> None:
    curve = draw_loss_curve(losses, size_hw=(120, 200))
    assert curve.size == (200, 120) and np.asarray(curve).std() > 0


def test_sheet_has_the_initializer_above_the_concept(make_concept) -> None:
    red, blue = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "blue")
    sheet = np.asarray(side_by_side(make_concept(), [red] * 3, [blue] * 3))
    is_red, is_blue = ((sheet == colour).all(axis=-1) for colour in ((255, 0, 0), (0, 0, 255)))
    assert is_red.sum() == is_blue.sum() == 3 * 24 * 32
    assert np.argwhere(is_red)[:, 0].max() < np.argwhere(is_blue)[:, 0].min()
