import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from diffugen.datasets import imagefolder
from diffugen.datasets.folder import class_names_of, read_dataset, read_samples, splits_of
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample

SIZE_HW = (31, 47)
NAMES = ["cat", "grand piano", "tent"]
PROVENANCE = {
    "model": {"path": "some/model", "revision": "fp16"},
    "prompt": 'a "grand piano" on the straße',
    "seed": 4_000_000_000,
    "task": "inpaint",
    "parent": {"name": "000003", "split": "train"},
    "labeler": "attention",
    "strength": 0.5,
}


def some_instances() -> Instances:
    """A hole; two parts; a single pixel; an overlap."""
    masks = np.zeros((4, *SIZE_HW), bool)
    masks[0, 3:20, 5:40] = True
    masks[0, 8:12, 10:20] = False
    masks[1, 0:3, 0:3] = masks[1, 21:30, 0:4] = True
    masks[2, 25, 9] = True
    masks[3, 15:31, 20:40] = True
    return Instances.from_masks(masks, [1, 0, 1, 0], [0.9, 0.25, 1.0, 0.123456])


def item(name: str, split: str, instances: Instances, provenance: dict | None = None) -> Sample:
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*SIZE_HW, 3), np.uint8)
    return Sample.labelled(name, pixels, instances, split, provenance or {})


EMPTY = Instances.empty(SIZE_HW)
ITEMS = [
    item("a", "train", some_instances(), PROVENANCE),
    item("b", "train", EMPTY),
    item("a", "val", some_instances()),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    imagefolder.write(tmp_path / "d", ITEMS, NAMES)
    return tmp_path / "d"


def test_a_folder_comes_back_with_its_provenance(folder: Path) -> None:
    assert class_names_of(folder) == NAMES and splits_of(folder) == ["train", "val"]
    read = [row for split in ("train", "val") for row in read_samples(folder, split)]
    for (found, image), given in zip(read, ITEMS, strict=True):
        assert (found.name, found.split, found.provenance) == (given.name, given.split, given.provenance)
        np.testing.assert_array_equal(image, given.image)
        np.testing.assert_array_equal(found.instances.masks, given.instances.masks)
        np.testing.assert_array_equal(found.instances.xyxy, given.instances.xyxy)
        np.testing.assert_array_equal(found.instances.class_ids, given.instances.class_ids)
        np.testing.assert_allclose(found.instances.scores, given.instances.scores, atol=1e-6)


def test_classes_can_be_chosen(folder: Path) -> None:
    [(_, _, found), _] = read_dataset(folder, "train", ["tent", "cat"])
    np.testing.assert_array_equal(found.masks, some_instances().masks[[1, 3]])
    assert found.class_ids.tolist() == [1, 1]


def test_hugging_face_datasets_loads_it(folder: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 2, "validation": 1}
    rows = {row["prompt"]: row for row in loaded["train"]}
    row = rows[PROVENANCE["prompt"]]
    np.testing.assert_array_equal(np.asarray(row["image"]), ITEMS[0].image)
    assert (row["model"], row["revision"], row["task"]) == ("some/model", "fp16", "inpaint")
    assert (row["seed"], row["parent"], row["labeler"]) == ("4000000000", "000003", "attention")
    assert row["objects"]["category"] == ["grand piano", "cat", "grand piano", "cat"]
    masks = [coco_mask.decode({**rle, "counts": rle["counts"].encode()}) for rle in row["objects"]["segmentation"]]
    np.testing.assert_array_equal(np.array(masks, bool), some_instances().masks)
    assert row["objects"]["bbox"][0] == [5, 3, 35, 17]
    assert rows[""]["objects"]["bbox"] == []  # the empty image
    assert loaded["validation"][0]["objects"]["score"][1] == 0.25


def test_a_model_and_a_parent_may_be_plain_names() -> None:
    row = imagefolder.to_row(item("a", "train", EMPTY, {"model": "m", "revision": "r", "parent": "p"}), "a.png", NAMES)
    assert (row["model"], row["revision"], row["parent"], row["prompt"], row["seed"]) == ("m", "r", "p", "", "")


def test_broken_folders_are_reported_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'test'; it has train, val"):
        list(read_dataset(folder, "test"))
    metadata = folder / "val" / "metadata.jsonl"
    row = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**row, "objects": {"bbox": []}}) + "\n")
    with pytest.raises(UserError, match="'a.png' has no objects that can be read"):
        list(read_dataset(folder, "val"))
    metadata.write_text("{\n")
    with pytest.raises(UserError, match="not valid JSON"):
        list(read_dataset(folder, "val"))
    with pytest.raises(ValueError, match="'a' comes twice in the split 'train'"):
        imagefolder.write(tmp_path / "e", [ITEMS[0], ITEMS[0]], NAMES)
    with pytest.raises(ValueError, match="has no images"):
        imagefolder.write(tmp_path / "e", [], NAMES)
