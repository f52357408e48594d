"""The confusion matrix."""

import numpy as np

from diffugen.evaluation.confusion import ConfusionMatrix
from diffugen.instances import Instances

SIZE_HW = (20, 40)


def blocks(*places: tuple[int, int], classes: list[int]) -> Instances:
    """Squares of ten pixels with their left edges and rows at places."""
    masks = np.zeros((len(places), *SIZE_HW), bool)
    for mask, (y, x) in zip(masks, places, strict=True):
        mask[y : y + 10, x : x + 10] = True
    return Instances.from_masks(masks, classes)


def test_every_object_and_detection_is_counted_once() -> None:
    matrix = ConfusionMatrix(2)
    truth = blocks((0, 0), (10, 0), (0, 20), classes=[0, 0, 1])
    found = blocks((0, 1), (0, 20), (10, 30), classes=[0, 0, 1])  # a hit, one of the other class, one of nothing
    matrix.add(found, truth)
    matrix.add(Instances.empty(SIZE_HW), blocks((0, 0), classes=[1]))
    matrix.add(blocks((0, 0), classes=[0]), Instances.empty(SIZE_HW))
    assert matrix.counts.tolist() == [[1, 0, 1], [1, 0, 1], [1, 1, 0]]


def test_a_detection_elsewhere_is_a_miss_and_a_false_one() -> None:
    matrix = ConfusionMatrix(1)
    matrix.add(blocks((0, 4), classes=[0]), blocks((0, 0), classes=[0]))  # IoU 0.43
    assert matrix.counts.tolist() == [[0, 1], [1, 0]]
