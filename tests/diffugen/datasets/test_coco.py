import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from diffugen.datasets import coco, coco_file
from diffugen.datasets.outlines import polygon_mask
from diffugen.instances import Instances, decode_rle, encode_rle

SIZE_HW = (31, 47)


def some_instances() -> Instances:
    masks = np.zeros((4, *SIZE_HW), bool)
    masks[0, 3:20, 5:40] = True
    masks[0, 8:12, 10:20] = False  # a hole
    masks[1, 0:5, 0:5] = masks[1, 20:31, 40:47] = True  # two parts, one in the corner
    masks[2, 25, 9] = True  # a single pixel
    masks[3, 20:31, 20:40] = True  # touches another
    return Instances.from_masks(masks, [1, 0, 1, 0], [0.9, 0.25, 1.0, 0.5])


def document(segmentation: coco.Segmentation) -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": SIZE_HW[0], "width": SIZE_HW[1]}],
        "annotations": coco.annotations_of(some_instances(), image_id=7, first_id=1, segmentation=segmentation),
        "categories": coco.categories(["cat", "piano"]),
    }


def read(document: dict, names: Sequence[str]) -> list[Instances]:
    """The objects of each image."""
    entries = coco_file.read_document(document, Path("x.json"), Path("img"), names)
    return [entry.labels(SIZE_HW) for entry in entries]


@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_instances_come_back_exactly(segmentation: coco.Segmentation) -> None:
    (entry,) = coco_file.read_document(document(segmentation), Path("x.json"), Path("img"))
    given, found = some_instances(), entry.labels(SIZE_HW)
    assert entry.path == Path("img/a.png")
    np.testing.assert_array_equal(found.masks, given.masks)
    np.testing.assert_array_equal(found.xyxy, given.xyxy)
    assert found.class_ids.tolist() == given.class_ids.tolist()
    np.testing.assert_allclose(found.scores, given.scores)


@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_pycocotools_reads_the_same_masks(segmentation: coco.Segmentation) -> None:
    index = COCO()
    index.dataset = document(segmentation)
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    for annotation, mask in zip(index.loadAnns(index.getAnnIds([7])), some_instances().masks, strict=True):
        np.testing.assert_array_equal(index.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()


def test_only_masks_without_holes_become_polygons() -> None:
    kinds = [type(annotation["segmentation"]) for annotation in document("polygon")["annotations"]]
    assert kinds == [dict, list, list, list]


def test_random_masks_without_holes_are_exact_as_polygons() -> None:
    rng = np.random.default_rng(1)
    steps = np.cumsum(rng.integers(-2, 3, (2, 25)), axis=1)
    mask = np.zeros((40, 29), bool)
    for column, (low, high) in enumerate(zip(10 + steps[0], 25 + steps[1], strict=True)):
        mask[max(low, 0) : max(high, low + 1), column] = True
    polygons = [np.reshape(polygon, (-1, 2)) for polygon in coco.polygons_of_edges(mask)]
    np.testing.assert_array_equal(polygon_mask(polygons, (40, 29)), mask)


def test_plain_run_lengths_are_read() -> None:
    counts = [3, 2, 31 * 47 - 5]  # column by column
    mask = decode_rle({"size": list(SIZE_HW), "counts": counts})
    assert np.argwhere(mask).tolist() == [[3, 0], [4, 0]]


def test_classes_are_found_by_name_and_others_and_crowds_are_passed_over() -> None:
    values = document("rle")
    values["annotations"][0]["iscrowd"] = 1
    (found,) = read(values, ["piano"])
    assert found.class_ids.tolist() == [0]  # the single pixel: the other piano is a crowd
    assert found.masks.sum() == 1


def test_an_image_without_annotations_is_empty() -> None:
    values = document("rle") | {"annotations": []}
    (found,) = read(values, ["cat", "piano"])
    assert len(found) == 0 and found.size_hw == SIZE_HW


def test_empty_masks_are_left_out_and_ids_go_on() -> None:
    masks = np.zeros((3, *SIZE_HW), bool)
    masks[[0, 2], 4, 4] = True
    found = coco.annotations_of(Instances.from_masks(masks, [0, 0, 0]), image_id=1, first_id=5)
    assert [annotation["id"] for annotation in found] == [5, 6]
    assert found[0]["segmentation"] == encode_rle(masks[0])
