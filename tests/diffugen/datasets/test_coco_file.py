"""COCO files of any origin: read as meant, refused by name, or left out with a word."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffugen.datasets import coco_file
from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.decoding import MAX_PIXELS
from diffugen.errors import UserError
from diffugen.images import write_image
from diffugen.instances import encode_rle

SIZE_HW = (20, 30)
SQUARE = [4, 3, 14, 3, 14, 13, 4, 13]
EXPECTED = np.zeros(SIZE_HW, bool)
EXPECTED[3:13, 4:14] = True
RUNS = [4 * 20 + 3, *[10, 10] * 9, 10, 20 * 30 - 13 * 20 - 13]  # of EXPECTED


def annotation(number: int = 1, **more: Any) -> dict[str, Any]:
    usual = {"id": number, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], "bbox": [4, 3, 10, 10]}
    return {key: value for key, value in (usual | more).items() if value is not ...}


def write(folder: Path, *annotations: Any, **parts: Any) -> Path:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "piano"}, {"id": 2, "name": "car"}],
    } | parts
    for name in ("a.png", "x/a.png", "y/a.png"):
        write_image(folder / name, np.zeros((*SIZE_HW, 3), np.uint8))
    (folder / "i.json").write_text(json.dumps(document))
    return folder / "i.json"


def read(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Image -> class and area of each object; those of class 0 are EXPECTED."""
    found = {}
    for name, _, instances in read_dataset(path, ""):
        for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
            assert class_id or (mask == EXPECTED).all()
        found[name] = [(int(i), int(mask.sum())) for i, mask in zip(instances.class_ids, instances.masks, strict=True)]
    return found


def test_the_run_lengths_are_those_of_the_square(tmp_path: Path) -> None:
    assert read(write(tmp_path, annotation(segmentation={"size": list(SIZE_HW), "counts": RUNS}))) == {"a": [(0, 100)]}


@pytest.mark.parametrize(
    "more",
    [
        {"segmentation": SQUARE},
        {"segmentation": [SQUARE[i : i + 2] for i in range(0, 8, 2)]},
        {"segmentation": [[SQUARE[i : i + 2] for i in range(0, 8, 2)]]},
        {"segmentation": [SQUARE, [1, 1, 2, 2], []]},
        {"segmentation": {"counts": RUNS}},
        {"segmentation": encode_rle(EXPECTED)},
        {"image_id": "1"},
        {"image_id": 1.0, "category_id": "1"},
        {"score": None},
        {"iscrowd": 0, "attributes": {"occluded": False}},
        {"segmentation": ..., "iscrowd": None},
        {"segmentation": []},
        {"segmentation": [[]]},
        {"segmentation": None},
        {"segmentation": {}},
    ],
)
def test_ways_to_say_the_same(tmp_path: Path, more: dict[str, Any]) -> None:
    assert read(write(tmp_path, annotation(**more))) == {"a": [(0, 100)]}


def test_boxes_that_count_as_masks_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(write(tmp_path, annotation(7, segmentation=[]), annotation(8)))
    assert "1 annotations have no outline, so their boxes count as masks (first: annotation 7)" in caplog.text


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"image_id": 9}, coco_file.UNKNOWN_IMAGE),
        ({"image_id": None}, coco_file.UNKNOWN_IMAGE),
        ({"category_id": 9}, coco_file.UNLISTED_CATEGORY),
        ({"category_id": ...}, coco_file.UNLISTED_CATEGORY),
        ({"iscrowd": 1}, coco_file.CROWD),
        ({"segmentation": [], "bbox": ...}, coco_file.NO_OUTLINE),
        ({"segmentation": [], "bbox": [1, 1, 0, 5]}, coco_file.NO_OUTLINE),
        ({"segmentation": [[1, 2, 3, 4]]}, "with fewer than three points"),
        ({"segmentation": [[1, 2, 3, 4, float("nan"), 6]]}, "no finite numbers"),
        ({"segmentation": [[1, 2, 3, 4, "x", 6]]}, "no finite numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "no finite numbers"),
        ({"segmentation": "cat"}, "no finite numbers"),
        ({"segmentation": [[50, 50, 60, 50, 60, 60]]}, "nothing inside the image"),
        ({"segmentation": [[1e9, 0, 1e9, 5, 0, 5]]}, "an outline that no image could hold"),
        ({"segmentation": [[0, 0, 30, 0] * 200]}, "an outline that no image could hold"),
        ({"segmentation": {"counts": [600]}}, "of an empty mask"),
        ({"segmentation": [], "bbox": [100, 100, 5, 5]}, "nothing inside the image"),
    ],
)
def test_what_has_no_mask_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: dict[str, Any], reason: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(write(tmp_path, annotation(1), annotation(2, **more), annotation(3, category_id=2))) == {
            "a": [(0, 100), (1, 100)]
        }
    assert "of 3 annotations left out: 1 " in caplog.text
    assert f"{reason} (first: annotation 2)" in caplog.text


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            {"size": [30, 20], "counts": RUNS},
            r"annotation 5: its mask has the size \[30, 20\], but the image \[20, 30\]",
        ),
        ({"size": [20, 30], "counts": [3, 4]}, "annotation 5: the run lengths sum to 7, not to 20 x 30"),
        ({"size": [20, 30], "counts": [3, 4, 900]}, "not all whole numbers from 0 to 600"),
        ({"size": [20, 30], "counts": [-3, 603]}, "not all whole numbers"),
        ({"size": [20, 30], "counts": [1.5, 598.5]}, "not all whole numbers"),
        ({"size": [20, 30], "counts": None}, "not all whole numbers"),
        ({"size": [20, 30], "counts": "Qk1d0"}, "sum to"),
        ({"size": [20, 30], "counts": "Qk1d"}, "sum to|cut off"),
        ({"size": [20, 30], "counts": "ooooooooooo"}, "damaged"),
        ({"size": [20, 30], "counts": "ä\n"}, "damaged"),
        ({"size": [20, 30], "counts": ""}, "cut off"),
        ({"size": [20, 30]}, "not all whole numbers"),
    ],
)
def test_run_lengths_that_do_not_fit_are_refused_by_name(tmp_path: Path, segmentation: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, annotation(5, segmentation=segmentation)))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": [{"id": 1, "file_name": 5}]}, "file_name of image 1 is '?5'?, which is no text"),
        ({"images": [{"id": 1, "file_name": "../a.png"}]}, "outside .*; only files in that folder are read"),
        ({"images": [{"id": 1, "file_name": "/etc/a.png"}]}, "outside"),
        ({"images": [{"id": 1, "file_name": "x\\..\\..\\a.png"}]}, "outside"),
        ({"images": [{"id": 1, "file_name": "C:\\a.png"}]}, "outside"),
        ({"images": [{"id": 1, "file_name": "a\0.png"}]}, "is no file name"),
        ({"images": [{"id": 1, "file_name": "\ud800.png"}]}, "is no file name"),
        ({"images": [{"id": 1, "file_name": "gone.png"}]}, "gone.png does not exist"),
        ({"images": [{"file_name": "a.png"}]}, r"images\[0\] has no id"),
        ({"images": [3]}, r"images\[0\] has no id"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "x/a.png"}]}, "image id 1 belongs to"),
        (
            {"images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 31}]},
            "is 30x20 pixels, but .* says 31x20",
        ),
        (
            {"images": [{"id": 1, "file_name": "a.png", "height": 10**5, "width": 10**5}]},
            f"at most {MAX_PIXELS} pixels",
        ),
        ({"images": [{"id": 1, "file_name": "a.png", "height": -2, "width": 3}]}, "which no image has"),
        ({"images": [{"id": 1, "file_name": "a.png", "height": [2], "width": 3}]}, "which no image has"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 is both 'a' and 'b'"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has no id and name"),
        ({"categories": 3}, "'categories' is no list"),
        ({"annotations": ["x"]}, r"annotations\[0\] is not an annotation"),
        ({"annotations": [annotation(score=7)]}, "annotation 1: its score is '7', not a number from 0 to 1"),
    ],
)
def test_entries_that_cannot_be_used_are_refused_by_name(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, **parts))


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"width": 30}, {"height": 0, "width": 0}])
def test_sizes_that_are_not_stated_are_the_files(tmp_path: Path, size: dict[str, Any]) -> None:
    path = write(tmp_path, annotation(), images=[{"id": 1, "file_name": "a.png"} | size])
    assert read(path) == {"a": [(0, 100)]}


def test_images_of_one_name_and_images_listed_twice(tmp_path: Path) -> None:
    names = ("x/a.png", "y\\a.png", "./x/a.png")
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, start=1)]
    annotations = (annotation(number, image_id=number) for number in (1, 2, 3))
    assert read(write(tmp_path, *annotations, images=images)) == {"x_a": [(0, 100), (0, 100)], "y_a": [(0, 100)]}


def test_masks_of_a_brush_are_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CVAT calls them crowds; in COCO's own files crowds are groups of objects."""
    mask = {"counts": RUNS, "size": list(SIZE_HW)}
    assert read(write(tmp_path, annotation(iscrowd=1, segmentation=mask))) == {"a": [(0, 100)]}
    brush = annotation(2, iscrowd=1, segmentation=mask, attributes={"occluded": False})
    crowd = annotation(3, iscrowd=1, segmentation=mask)
    assert read(write(tmp_path, annotation(), brush, crowd)) == {"a": [(0, 100), (0, 100)]}
    assert "1 crowds (first: annotation 3)" in caplog.text


def test_categories_of_one_name(tmp_path: Path) -> None:
    """Roboflow's root category, which no annotation has, may be called like a class."""
    categories = [{"id": 0, "name": "piano"}, {"id": 1, "name": "piano"}, {"id": 2, "name": "car"}]
    path = write(tmp_path, annotation(), categories=categories)
    assert class_names_of(path) == ["piano", "car"] and read(path) == {"a": [(0, 100)]}
    with pytest.raises(UserError, match="the categories 0 and 1 are both called 'piano'; rename one"):
        read(write(tmp_path, annotation(), annotation(2, category_id=0), categories=categories))


def test_masks_take_no_more_memory_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffugen.datasets.labelled.MAX_MASK_BYTES", 5 * 600)
    assert len(read(write(tmp_path, *[annotation(number) for number in range(5)]))["a"]) == 5
    with pytest.raises(UserError, match=r"i\.json: a\.png has 6 objects on 30x20 pixels"):
        read(write(tmp_path, *[annotation(number) for number in range(6)]))
