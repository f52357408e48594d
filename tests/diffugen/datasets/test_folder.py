import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from diffugen.datasets.folder import class_names_of, read_dataset, splits_of, write_dataset
from diffugen.errors import UserError
from diffugen.images import read_image, write_image
from diffugen.instances import Instances
from diffugen.sample import Sample

SIZE_HW = (24, 40)
NAMES = ["grand-piano", "car"]


def item(name: str, split: str, num: int = 1) -> Sample:
    rng = np.random.default_rng(len(name) + num)
    masks = np.zeros((num, *SIZE_HW), bool)
    for i in range(num):
        masks[i, 3:15, 12 * i : 12 * i + 9] = True
        masks[i, 5:8, 12 * i + 3 : 12 * i + 5] = False  # a hole
    image = rng.integers(0, 255, (*SIZE_HW, 3), np.uint8)
    return Sample.labelled(name, image, Instances.from_masks(masks, [i % 2 for i in range(num)]), split, {"seed": num})


ITEMS = [item("a", "train", 2), item("b", "train", 0), item("c", "val", 3)]


@pytest.mark.parametrize("source", ["coco", "yolo"])
def test_a_dataset_comes_back(tmp_path: Path, source: str) -> None:
    write_dataset(tmp_path / "d", ITEMS, NAMES)
    if source == "yolo":
        shutil.rmtree(tmp_path / "d" / "coco")
    assert class_names_of(tmp_path / "d") == NAMES
    assert splits_of(tmp_path / "d") == ["train", "val"]
    read = [*read_dataset(tmp_path / "d", "train"), *read_dataset(tmp_path / "d", "val")]
    for given, (name, image, instances) in zip(ITEMS, read, strict=True):
        assert name == given.name
        np.testing.assert_array_equal(image, given.image)
        np.testing.assert_array_equal(instances.masks, given.instances.masks)
        assert instances.class_ids.tolist() == given.instances.class_ids.tolist()


@pytest.mark.parametrize("source", ["coco", "yolo"])
def test_classes_can_be_chosen_and_ordered(tmp_path: Path, source: str) -> None:
    write_dataset(tmp_path / "d", ITEMS, NAMES)
    if source == "yolo":
        shutil.rmtree(tmp_path / "d" / "coco")
    ((_, _, instances),) = read_dataset(tmp_path / "d", "val", ["car", "tent"])
    assert instances.class_ids.tolist() == [0]
    np.testing.assert_array_equal(instances.masks[0], ITEMS[2].instances.masks[1])


def test_image_files_are_linked_not_copied(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", ITEMS[0].image)
    linked = Sample.labelled("a", tmp_path / "x.png", ITEMS[0].instances, "train")
    write_dataset(tmp_path / "d", [linked], NAMES)
    write_dataset(tmp_path / "e", [linked], NAMES, link_images=False)
    assert os.path.samefile(tmp_path / "x.png", tmp_path / "d/images/train/a.png")
    assert not os.path.samefile(tmp_path / "x.png", tmp_path / "e/images/train/a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "e/images/train/a.png"), ITEMS[0].image)


def test_images_are_copied_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError("no links here")

    write_image(tmp_path / "x.png", ITEMS[0].image)
    monkeypatch.setattr(os, "link", refuse)
    write_dataset(tmp_path / "d", [Sample.labelled("a", tmp_path / "x.png", ITEMS[0].instances, "train")], NAMES)
    np.testing.assert_array_equal(read_image(tmp_path / "d/images/train/a.png"), ITEMS[0].image)


def test_a_failed_write_leaves_the_old_dataset(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", ITEMS, NAMES)
    with pytest.raises(ValueError, match="'a' comes twice in the split 'train'"):
        write_dataset(tmp_path / "d", [ITEMS[0], ITEMS[0]], NAMES)
    assert len(list(read_dataset(tmp_path / "d", "train"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Sample.labelled("../a", ITEMS[0].image, ITEMS[0].instances, "train"), "plain file names"),
        (
            Sample.labelled("a", ITEMS[2].image, Instances.from_masks(ITEMS[0].instances.masks, [0, 2]), "train"),
            "class ids",
        ),
    ],
)
def test_items_that_do_not_fit_are_refused(tmp_path: Path, bad: Sample, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "d", [bad], NAMES)


def test_no_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no images"):
        write_dataset(tmp_path / "d", [], NAMES)


def test_pycocotools_loads_the_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_dataset(tmp_path / "d", ITEMS, NAMES)
    index = COCO(str(tmp_path / "d/coco/val.json"))
    masks = [index.annToMask(annotation) for annotation in index.loadAnns(index.getAnnIds())]
    np.testing.assert_array_equal(np.stack(masks).astype(bool), ITEMS[2].instances.masks)
    assert index.loadImgs([1])[0]["provenance"] == {"seed": 3}
    assert [category["name"] for category in index.loadCats(index.getCatIds())] == NAMES


def test_a_coco_file_alone_is_read(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", ITEMS, NAMES)
    path = tmp_path / "d/coco/train.json"
    assert class_names_of(path) == NAMES
    read = list(read_dataset(path, "", images=tmp_path / "d/images/train"))
    assert [name for name, _, _ in read] == ["a", "b"]


def test_ultralytics_resolves_the_yaml_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffugen.detector.model import import_ultralytics

    import_ultralytics()
    from ultralytics.data.utils import check_det_dataset

    write_dataset(tmp_path / "d", ITEMS, ['a "quoted": name', "straße"])
    monkeypatch.chdir("/")
    data = check_det_dataset(str(tmp_path / "d/data.yaml"), autodownload=False)
    assert data["train"] == str(tmp_path / "d/images/train") and data["val"] == str(tmp_path / "d/images/val")
    assert data["names"] == {0: 'a "quoted": name', 1: "straße"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_split_stands_in_for_the_ones_ultralytics_demands(tmp_path: Path, split: str) -> None:
    write_dataset(tmp_path / "d", [item("a", split)], NAMES)
    assert {"train", "val"} <= set(splits_of(tmp_path / "d"))
    assert [name for name, _, _ in read_dataset(tmp_path / "d", split)] == ["a"]


def foreign(tmp_path: Path, data_yaml: str, label: str | None = None) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    write_image(tmp_path / "images/a.png", ITEMS[0].image)
    (tmp_path / "data.yaml").write_text(data_yaml)
    if label is not None:
        (tmp_path / "labels/a.txt").write_text(label)
    return tmp_path


def test_a_foreign_dataset_is_read(tmp_path: Path) -> None:
    root = foreign(
        tmp_path,
        "path: .\ntrain: images\nval: images\nnames: [x, y]\n",
        "1 0.1 0.1 0.6 0.1 0.6 0.6 0.1 0.6\n",
    )
    ((name, image, instances),) = read_dataset(root, "val")
    assert (name, image.shape[:2], instances.class_ids.tolist()) == ("a", SIZE_HW, [1])


@pytest.mark.parametrize(
    ("data_yaml", "label", "message"),
    [
        ("train: images\nval: images\nnames: [x]\n", "0 0.1 0.1 0.6", "neither a box nor a polygon"),
        ("train: images\nval: images\nnames: [x]\n", "4 0.1 0.1 0.6 0.6", "class id 4 has no name"),
        ("train: images\nnames: [x]\n", None, "no split 'val'"),
        ("train: images\nval: nowhere\nnames: [x]\n", None, "not at .*nowhere"),
        ("train: images\nval: images\n", None, "no `names`"),
        ("train: [\n", None, "not valid YAML"),
    ],
)
def test_broken_datasets_are_reported_in_a_sentence(
    tmp_path: Path, data_yaml: str, label: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        list(read_dataset(foreign(tmp_path, data_yaml, label), "val"))


def test_missing_and_corrupt_files_are_reported_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data\.yaml"):
        list(read_dataset(tmp_path, "val"))
    with pytest.raises(UserError, match="does not exist"):
        list(read_dataset(tmp_path / "x.json", ""))
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match="not a COCO instance file"):
        list(read_dataset(tmp_path / "x.json", ""))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG but not really")
    with pytest.raises(UserError, match="not a readable image"):
        read_image(tmp_path / "broken.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path / "absent.png")


def test_a_coco_entry_of_another_size_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", ITEMS, NAMES)
    path = tmp_path / "d/coco/val.json"
    document = json.loads(path.read_text())
    write_image(tmp_path / "d/images/val/c.png", np.zeros((40, 24, 3), np.uint8))
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"c\.png is 24x40 pixels, but .*val\.json says 40x24"):
        list(read_dataset(tmp_path / "d", "val"))
