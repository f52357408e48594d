import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO

from diffugen.datasets import coco
from diffugen.instances import Instances, encode_rle

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


@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_instances_come_back_exactly(segmentation: coco.Segmentation) -> None:
    ((entry, read),) = coco.read(document(segmentation), ["cat", "piano"])
    given = some_instances()
    assert entry["file_name"] == "a.png"
    np.testing.assert_array_equal(read.masks, given.masks)
    np.testing.assert_array_equal(read.xyxy, given.xyxy)
    assert read.class_ids.tolist() == given.class_ids.tolist()
    np.testing.assert_allclose(read.scores, given.scores)


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
    np.testing.assert_array_equal(coco.decode(coco.polygons_of_edges(mask), (40, 29)), mask)


def test_plain_run_lengths_are_read() -> None:
    counts = [3, 2, 31 * 47 - 5]  # column by column
    mask = coco.decode({"size": list(SIZE_HW), "counts": counts}, SIZE_HW)
    assert np.argwhere(mask).tolist() == [[3, 0], [4, 0]]


def test_classes_are_found_by_name_and_others_and_crowds_are_passed_over() -> None:
    values = document("rle")
    values["annotations"][0]["iscrowd"] = 1
    ((_, read),) = coco.read(values, ["piano"])
    assert read.class_ids.tolist() == [0]  # the single pixel: the other piano is a crowd
    assert read.masks.sum() == 1


def test_an_image_without_annotations_is_empty() -> None:
    values = document("rle") | {"annotations": []}
    ((_, read),) = coco.read(values, ["cat", "piano"])
    assert len(read) == 0 and read.size_hw == SIZE_HW


def test_empty_masks_are_left_out_and_ids_go_on() -> None:
    masks = np.zeros((3, *SIZE_HW), bool)
    masks[[0, 2], 4, 4] = True
    found = coco.annotations_of(Instances.from_masks(masks, [0, 0, 0]), image_id=1, first_id=5)
    assert [annotation["id"] for annotation in found] == [5, 6]
    assert found[0]["segmentation"] == encode_rle(masks[0])


def test_what_is_no_instance_file_is_refused() -> None:
    with pytest.raises(ValueError, match="no 'annotations'"):
        list(coco.read({"images": [], "categories": []}, ["a"]))
