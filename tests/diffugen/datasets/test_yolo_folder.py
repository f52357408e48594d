"""Images and label files are found where ultralytics finds them; what has no labels is told."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from diffugen.datasets import yolo_folder
from diffugen.datasets.folder import own_splits, read_dataset
from diffugen.errors import UserError
from diffugen.images import write_image

SQUARE = "{} 0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6\n"
IMAGE = np.full((20, 30, 3), 90, np.uint8)


def dataset(root: Path, yaml: str, **files: str | None) -> Path:
    """Images (None) and label files, by their path with . for folders and _ for the dot."""
    for name, text in files.items():
        add(root, "/".join(name.split("__")).replace("_", "."), text)
    root.mkdir(exist_ok=True)
    (root / "data.yaml").write_text(yaml + "\nnames: [piano, car]\n")
    return root


def add(root: Path, path: str, text: str | None) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / path, IMAGE) if text is None else (root / path).write_text(text)


def classes(root: Path, split: str = "train") -> dict[str, list[int]]:
    return {name: found.class_ids.tolist() for name, _, found in read_dataset(root, split)}


@pytest.mark.parametrize(
    ("place", "image", "label"),
    [
        ("images/train", "images/train/a.png", "labels/train/a.txt"),
        ("images/train", "images/train/x/a.png", "labels/train/x/a.txt"),
        ("obj_train_data", "obj_train_data/a.png", "obj_train_data/a.txt"),  # Darknet: beside the image
        ("train/images", "train/images/a.png", "train/labels/a.txt"),
        ("images/images", "images/images/a.png", "images/labels/a.txt"),  # the last folder of that name
    ],
)
def test_labels_are_where_ultralytics_looks(tmp_path: Path, place: str, image: str, label: str) -> None:
    from diffugen.detector.model import import_ultralytics

    import_ultralytics()
    from ultralytics.data.utils import img2label_paths

    root = dataset(tmp_path, f"train: {place}")
    add(root, image, None)
    add(root, label, SQUARE.format(1))
    assert classes(root) == {"a": [1]}
    assert str(yolo_folder.label_file(root / image)) == img2label_paths([str(root / image)])[0]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("Images/a.png", "Labels/a.txt"),
        ("Images/a.png", "labels/a.txt"),
        ("images/a.png", "labels/a.TXT"),
        ("images/a.PNG", "labels/a.txt"),
    ],
)
def test_case_does_not_matter(tmp_path: Path, image: str, label: str) -> None:
    root = dataset(tmp_path, f"train: {image.split('/')[0]}")
    add(root, image, None)
    add(root, label, SQUARE.format(1))
    assert classes(root) == {"a": [1]}


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A linked folder of images has its labels beside the link or beside the images; a loop ends."""
    root = dataset(tmp_path / "d", "train: images", labels__far__a_txt=SQUARE.format(1))
    add(tmp_path, "disk/far/a.png", None)
    (root / "images").mkdir()
    (root / "images/far").symlink_to(tmp_path / "disk/far")
    (root / "images/loop").symlink_to(root / "images")
    assert classes(root) == {"a": [1]}

    other = dataset(tmp_path / "e", "train: images")
    add(tmp_path, "disk/set/images/b.png", None)
    add(tmp_path, "disk/set/labels/b.txt", SQUARE.format(0))
    (other / "images").symlink_to(tmp_path / "disk/set/images")
    assert classes(other) == {"b": [0]}


def test_text_files_list_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path, "train: [lists/one.txt, images/c.png]", labels__a_txt=SQUARE.format(1))
    for name in "abc":
        add(root, f"images/{name}.png", None)
    add(root, "lists/one.txt", f"./../images/a.png\n\nimages/b.png\n{root}/images/a.png\nnotes.md\n")
    assert classes(root) == {"a": [1], "b": [], "c": []}
    assert "one.txt, line 5: 'notes.md' is no image" in caplog.text
    add(root, "lists/one.txt", "images/gone.png\n")
    with pytest.raises(UserError, match=r"one\.txt, line 1: image 'images/gone\.png' does not exist"):
        classes(root)


def test_equal_names_are_distinguished(tmp_path: Path) -> None:
    root = dataset(tmp_path, "train: [images/x, images/y]")
    for number, name in enumerate(("x/a", "y/a")):
        add(root, f"images/{name}.png", None)
        add(root, f"labels/{name}.txt", SQUARE.format(number))
    assert classes(root) == {"x_a": [0], "y_a": [1]}


def test_images_without_a_label_file_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path, "train: images", images__a_png=None, images__b_png=None, labels__b_txt="")
    with caplog.at_level(logging.WARNING):
        assert classes(root) == {"a": [], "b": []}
    assert "1 of 2 images have no label file and count as background" in caplog.text
    assert str(tmp_path / "labels/a.txt") in caplog.text


def test_errors_name_the_file_and_the_line(tmp_path: Path) -> None:
    root = dataset(tmp_path, "train: images", images__a_png=None, labels__a_txt=SQUARE.format(0) + "\n1 0.5\n")
    with pytest.raises(UserError, match=r"a\.txt: line 3: 1 coordinates make neither a box nor a polygon in '1 0.5'"):
        classes(root)
    (root / "labels/a.txt").write_bytes(SQUARE.format(0).encode("utf-16"))
    with pytest.raises(UserError, match=r"a\.txt is UTF-16 text"):
        classes(root)
    (root / "labels/a.txt").write_text(SQUARE.format(9))
    with pytest.raises(UserError, match=r"a\.txt: class id 9 has no name"):
        classes(root)
    (root / "images/a.png").unlink()
    with pytest.raises(UserError, match="split 'train' has no images"):
        classes(root)


def test_a_split_whose_images_are_missing_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path, "train: ../images\ntest: ../test/images", images__a_png=None)
    assert own_splits(root) == ["train"]
    assert "split 'test' are not at" in caplog.text
    (root / "data.yaml").write_text("train: gone\nnames: [a]\n")
    with pytest.raises(UserError, match="split 'train' are not at"):
        own_splits(root)


def test_links_to_themselves_and_pipes_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path / "d", "train: images", images__a_png=None, labels__a_txt=SQUARE.format(1))
    (root / "images" / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "images" / "pipe.png")
    assert classes(root) == {"a": [1]}
    assert "left out 2 files" in caplog.text


def test_boxes_that_become_masks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {"images__a_png": None, "labels__a_txt": "0 0.5 0.5 0.2 0.2\n" + SQUARE.format(0), "images__b_png": None}
    dataset(tmp_path, "train: images", **files, labels__b_txt=SQUARE.format(0))
    assert classes(tmp_path) == {"a": [0, 0], "b": [0]}
    assert "1 labels have no outline, so their boxes count as masks (first: a.txt)" in caplog.text


@pytest.mark.parametrize("line", ["0" + " 0.5 0.5" * 3, "0 0.5 0.5 0.501 0.5 0.5 0.501", "0" + " 1 1" * 4, "0 1 1 0 0"])
def test_labels_of_a_single_pixel_are_told(line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset(tmp_path, "train: images", images__a_png=None, labels__a_txt=f"{line}\n{SQUARE.format(1)}")
    assert classes(tmp_path) == {"a": [0, 1]}
    assert "1 labels cover a single pixel (first: a.txt)" in caplog.text
