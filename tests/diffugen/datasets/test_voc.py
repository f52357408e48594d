from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffugen.datasets import voc
from diffugen.datasets.folder import class_names_of, read_dataset, splits_of
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample

SIZE_HW = (31, 47)
NAMES = ["cat", "piano"]


def some_instances() -> Instances:
    """A hole; two parts; a single pixel; two of one class that touch."""
    masks = np.zeros((5, *SIZE_HW), bool)
    masks[0, 3:20, 5:40] = True
    masks[0, 8:12, 10:20] = False
    masks[1, 0:3, 0:3] = masks[1, 21:30, 0:4] = True
    masks[2, 25, 9] = True
    masks[3, 22:31, 20:30] = True
    masks[4, 22:31, 30:40] = True
    return Instances.from_masks(masks, [1, 0, 1, 0, 0])


def item(name: str, split: str, instances: Instances, image: Path | None = None) -> Sample:
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*SIZE_HW, 3), np.uint8)
    return Sample.labelled(name, pixels if image is None else image, instances, split)


def test_instances_come_back_exactly() -> None:
    given = some_instances()
    read = voc.from_masks(*voc.to_masks(given))
    np.testing.assert_array_equal(read.masks, given.masks)
    np.testing.assert_array_equal(read.class_ids, given.class_ids)
    np.testing.assert_array_equal(read.xyxy, given.xyxy)


def test_without_object_masks_touching_objects_merge_and_parts_separate() -> None:
    given = some_instances()
    classes, _ = voc.to_masks(given)
    read = voc.from_masks(classes)
    expected = [given.masks[0], given.masks[2], given.masks[3] | given.masks[4]]
    for mask in expected:
        assert any((mask == found).all() for found in read.masks)
    assert len(read) == 5  # the object of two parts is two
    union = [np.any(given.masks[given.class_ids == class_id], axis=0) for class_id in (0, 1)]
    for class_id, mask in enumerate(union):
        np.testing.assert_array_equal(np.any(read.masks[read.class_ids == class_id], axis=0), mask)


def test_a_contested_pixel_goes_to_the_higher_score() -> None:
    masks = np.zeros((2, *SIZE_HW), bool)
    masks[0, 5:15, 5:15] = masks[1, 5:15, 10:20] = True
    read = voc.from_masks(*voc.to_masks(Instances.from_masks(masks, [0, 1], [0.9, 0.4])))
    np.testing.assert_array_equal(read.masks[0], masks[0])
    np.testing.assert_array_equal(read.masks[1], masks[1] & ~masks[0])


def test_ignored_pixels_belong_to_nobody() -> None:
    classes, objects = voc.to_masks(some_instances())
    classes[3, :], objects[3, :] = voc.IGNORE, voc.IGNORE
    for read in (voc.from_masks(classes, objects), voc.from_masks(classes)):
        assert not read.masks[:, 3].any()
        assert set(read.class_ids) == {0, 1}


def test_many_components_are_all_kept() -> None:
    """More than the 254 that an object mask could number."""
    classes = np.zeros((40, 60), np.uint8)
    classes[::2, ::2] = 1
    read = voc.from_masks(classes)
    assert len(read) == 600 and read.masks.sum() == 600


def test_more_than_a_png_holds_is_refused() -> None:
    masks = np.zeros((255, *SIZE_HW), bool)
    with pytest.raises(UserError, match="255 classes or objects do not fit"):
        voc.to_masks(Instances.from_masks(masks, [0] * 255))
    with pytest.raises(UserError, match="256 classes or objects do not fit"):
        voc.to_masks(Instances.from_masks(masks[:1], [255]))


def test_the_palette_is_vocs() -> None:
    colours = np.array(voc.palette()).reshape(256, 3).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[20] == [0, 64, 128] and colours[255] == [224, 224, 192]


def test_a_folder_comes_back(tmp_path: Path) -> None:
    empty = Instances.empty(SIZE_HW)
    given = [item("a", "train", some_instances()), item("b", "train", empty), item("a", "val", empty)]
    voc.write(tmp_path / "d", given, NAMES)
    assert class_names_of(tmp_path / "d") == NAMES and splits_of(tmp_path / "d") == ["train", "val"]
    read = [*read_dataset(tmp_path / "d", "train"), *read_dataset(tmp_path / "d", "val")]
    assert [name for name, _, _ in read] == ["a", "b", "val_a"]  # one folder holds the images of all splits
    for (_, image, instances), expected in zip(read, given, strict=True):
        np.testing.assert_array_equal(image, expected.image)
        np.testing.assert_array_equal(instances.masks, expected.instances.masks)
    [(_, _, pianos), _] = read_dataset(tmp_path / "d", "train", ["piano"])
    np.testing.assert_array_equal(pianos.masks, some_instances().masks[[0, 2]])
    assert pianos.class_ids.tolist() == [0, 0]


def test_torchvision_reads_it_as_voc(tmp_path: Path) -> None:
    from torchvision.datasets import VOCSegmentation

    Image.fromarray(np.zeros((*SIZE_HW, 3), np.uint8)).save(tmp_path / "photo.jpg")
    voc.write(tmp_path / "VOCdevkit" / "VOC2012", [item("a", "train", some_instances(), tmp_path / "photo.jpg")], NAMES)
    ((photo, mask),) = VOCSegmentation(str(tmp_path), year="2012", image_set="train")
    assert photo.size == mask.size == SIZE_HW[::-1]
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.asarray(mask), voc.to_masks(some_instances())[0])
    assert mask.convert("RGB").getpixel((6, 4)) == (0, 128, 0)  # the second class in VOC's green


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("labels.txt", None, r"has no labels\.txt"),
        ("JPEGImages/a.png", None, "lists 'a', which is not in JPEGImages"),
        ("SegmentationClass/a.png", None, "the masks of 'a' cannot be read"),
        ("SegmentationClass/a.png", b"no picture", "the masks of 'a' cannot be read"),
    ],
)
def test_broken_folders_are_reported_in_a_sentence(
    tmp_path: Path, path: str, content: bytes | None, message: str
) -> None:
    voc.write(tmp_path / "d", [item("a", "train", some_instances())], NAMES)
    (tmp_path / "d" / path).unlink()
    (tmp_path / "d" / "labelmap.txt").unlink()
    if content is not None:
        (tmp_path / "d" / path).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_dataset(tmp_path / "d", "train"))


def test_missing_splits_and_items_are_named(tmp_path: Path) -> None:
    voc.write(tmp_path / "d", [item("a", "train", some_instances())], NAMES)
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        list(read_dataset(tmp_path / "d", "test"))
    with pytest.raises(ValueError, match="has no images"):
        voc.write(tmp_path / "e", [], NAMES)
    (tmp_path / "d/ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(UserError, match="split 'train' has no images; add some, or remove the split"):
        list(read_dataset(tmp_path / "d", "train"))


def test_an_image_that_is_listed_twice_is_read_once(tmp_path: Path) -> None:
    voc.write(tmp_path / "d", [item("a", "train", some_instances()), item("b", "train", some_instances())], NAMES)
    (tmp_path / "d/ImageSets/Segmentation/train.txt").write_text("a\nb\na\n")
    assert [name for name, _, _ in read_dataset(tmp_path / "d", "train")] == ["a", "b"]
