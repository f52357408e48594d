"""Every format into every other: instances, splits, class names and, where the format can, provenance survive."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]

from diffugen.datasets import imagefolder, voc, webdataset
from diffugen.datasets.export import export_dataset
from diffugen.datasets.folder import class_names_of, own_splits, read_samples, write_dataset
from diffugen.errors import UserError
from diffugen.images import write_image
from diffugen.instances import Instances
from diffugen.outputs import MARKER, claim_output
from diffugen.sample import Sample

SIZE_HW = (37, 53)
WRITERS = {"yolo": write_dataset, "voc": voc.write, "imagefolder": imagefolder.write, "webdataset": webdataset.write}
NAMES = ["grand-piano", "car"]


def masks_of(*shapes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Per object its rectangles (x1, y1, x2, y2); one with x1 > x2 is a hole."""
    masks = np.zeros((len(shapes), *SIZE_HW), bool)
    for mask, rectangles in zip(masks, shapes, strict=True):
        for x1, y1, x2, y2 in rectangles:
            mask[y1:y2, min(x1, x2) : max(x1, x2)] = x1 < x2
    return masks


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


CASES = {
    "hole": Instances.from_masks(masks_of([(5, 5, 40, 30), (20, 10, 10, 20)]), [0]),
    "tiny": Instances.from_masks(masks_of([(11, 9, 12, 10)], [(30, 2, 32, 3)]), [1, 0]),
    "touching": Instances.from_masks(masks_of([(5, 5, 20, 20)], [(20, 5, 35, 20)], [(5, 20, 35, 30)]), [1, 1, 0]),
    "empty": Instances.empty(SIZE_HW),
}
PARTS = Instances.from_masks(masks_of([(2, 2, 9, 9), (30, 20, 44, 30)]), [1])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    items = [
        Sample.labelled(name, picture(number), instances, "val" if name == "tiny" else "train", {"seed": number})
        for number, (name, instances) in enumerate(CASES.items())
    ]
    items.append(Sample.labelled("parts", picture(9), PARTS, "val", {"seed": 9}))
    write_dataset(tmp_path / "source", items, NAMES)
    return tmp_path / "source"


def rows_of(root: Path) -> dict[str, tuple[Sample, np.ndarray]]:
    return {item.name: (item, image) for split in own_splits(root) for item, image in read_samples(root, split)}


def assert_same(found: Path, expected: Path, *, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    given, read = rows_of(expected), rows_of(found)
    assert class_names_of(found) == class_names_of(expected)
    assert set(read) == set(given)
    for name, (item, image) in read.items():
        other, pixels = given[name]
        np.testing.assert_array_equal(image, pixels)
        assert item.split == other.split
        if name not in but:
            order, other_order = (
                sorted(range(len(i)), key=lambda k, i=i: i.masks[k].tobytes())  # type: ignore[misc]
                for i in (item.instances, other.instances)
            )
            np.testing.assert_array_equal(item.instances.masks[order], other.instances.masks[other_order])
            np.testing.assert_array_equal(item.instances.class_ids[order], other.instances.class_ids[other_order])


@pytest.mark.parametrize(("first", "second"), itertools.permutations(("yolo", "voc", "imagefolder"), 2))
def test_formats_convert_into_each_other(source: Path, tmp_path: Path, first: str, second: str) -> None:
    export_dataset(source, tmp_path / "a", layout=first)
    export_dataset(tmp_path / "a", tmp_path / "b", layout=second)
    assert_same(tmp_path / "a", source)
    assert_same(tmp_path / "b", source)


@pytest.mark.parametrize("masks", ["rle", "polygon"])
def test_coco_files_are_exact(source: Path, tmp_path: Path, masks: str) -> None:
    export_dataset(source, tmp_path / "a", masks=masks)  # type: ignore[arg-type]
    for path in (tmp_path / "a" / "labels").rglob("*.txt"):
        path.unlink()  # so that nothing is read from YOLO's lines
    assert_same(tmp_path / "a", source)


def test_yolo_lines_alone_are_exact(source: Path, tmp_path: Path) -> None:
    export_dataset(source, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "coco")
    assert_same(tmp_path / "a", source)


@pytest.mark.parametrize(("layout", "expected"), [("yolo", {"seed": 9}), ("imagefolder", {"seed": 9}), ("voc", {})])
def test_provenance_is_kept_where_the_format_can(
    source: Path, tmp_path: Path, layout: str, expected: dict[str, int]
) -> None:
    export_dataset(source, tmp_path / "a", layout=layout)
    assert rows_of(tmp_path / "a")["parts"][0].provenance == expected


def test_classes_can_be_chosen_and_ordered(source: Path, tmp_path: Path) -> None:
    export_dataset(source, tmp_path / "a", class_names=["car"], layout="voc")
    assert class_names_of(tmp_path / "a") == ["car"]
    rows = rows_of(tmp_path / "a")
    assert {name: len(item.instances) for name, (item, _) in rows.items()} == {
        "hole": 0,
        "tiny": 1,
        "touching": 2,
        "empty": 0,
        "parts": 1,
    }


def test_near_duplicates_are_dropped_across_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = np.clip(picture(1).astype(int) + 3, 0, 255).astype(np.uint8)
    items = [
        Sample.labelled("a", picture(1), CASES["hole"], "train"),
        Sample.labelled("b", picture(2), CASES["tiny"], "train"),
        Sample.labelled("c", twin, CASES["hole"], "val"),
        Sample.labelled("d", picture(3), CASES["hole"], "val"),
    ]
    write_dataset(tmp_path / "source", items, NAMES)
    export_dataset(tmp_path / "source", tmp_path / "a", drop_duplicates=0.06)
    assert set(rows_of(tmp_path / "a")) == {"a", "b", "d"}
    assert "dropped 1 near-duplicates\ntrain: 2 images, val: 1 images" in capsys.readouterr().out
    export_dataset(tmp_path / "source", tmp_path / "b")
    assert set(rows_of(tmp_path / "b")) == {"a", "b", "c", "d"}


def test_what_cannot_be_exported_is_reported_in_a_sentence(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the input"):
        export_dataset(source, source)
    with pytest.raises(UserError, match="has no class 'dog'; its classes are grand-piano, car"):
        export_dataset(source, tmp_path / "a", class_names=["dog"])


@pytest.mark.parametrize("layout", ["yolo", "voc", "imagefolder"])
def test_a_dataset_without_images_is_refused(tmp_path: Path, layout: str) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}]}')
    with pytest.raises(UserError, match="has no images"):
        export_dataset(tmp_path / "a.json", tmp_path / "out", layout=layout)
    assert not (tmp_path / "out").exists()


def test_class_names_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}')
    with pytest.raises(UserError, match=r"the class '\\ud800' is no line of text that can be written"):
        export_dataset(tmp_path / "a.json", tmp_path / "out")


@pytest.mark.parametrize("place", ["images/train/hole.png", "labels", "data.yaml", "coco/train.json", ""])
def test_a_dataset_in_an_output_leads_nowhere_else(source: Path, tmp_path: Path, place: str) -> None:
    """A run folder may be a stranger's; a dataset that diffugen did not write may have links."""
    run = tmp_path / "run"
    claim_output(run, "loop")
    shutil.copytree(source, run / "dataset")
    (run / "dataset" / place).rename(tmp_path / "outside")
    (run / "dataset" / place).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of the folder that diffugen wrote"):
        export_dataset(run / "dataset", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (run / MARKER).unlink()
    (run / "dataset" / MARKER).unlink()
    export_dataset(run / "dataset", tmp_path / "out")


def test_the_data_yaml_of_an_output_leads_nowhere_else(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "dataset")
    shutil.rmtree(tmp_path / "dataset" / "coco")
    (tmp_path / "dataset" / "data.yaml").write_text("names: [grand-piano, car]\ntrain: ../source/images/train\n")
    with pytest.raises(UserError, match="lies outside .*dataset; copy it into the dataset"):
        export_dataset(tmp_path / "dataset", tmp_path / "out")
    (tmp_path / "dataset" / MARKER).unlink()
    export_dataset(tmp_path / "dataset", tmp_path / "out")


@pytest.mark.parametrize("name", ["a\nb", "a\x85b", "a\u2028b", " ", "\udcff"])
@pytest.mark.parametrize("layout", ["yolo", "voc", "imagefolder", "webdataset"])
def test_names_that_a_file_of_classes_would_split_are_refused(tmp_path: Path, name: str, layout: str) -> None:
    """A class per line: the second half would be a class of its own, and the labels be lost."""
    with pytest.raises(UserError, match="is no line of text that can be written; rename it"):
        WRITERS[layout](tmp_path / "out", iter([]), ["car", name])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["..", "a/b"])
def test_splits_stay_in_the_dataset(tmp_path: Path, split: str) -> None:
    sample = Sample.labelled("a", picture(0), CASES["empty"], split)
    with pytest.raises(ValueError, match="both must be plain file names"):
        write_dataset(tmp_path / "out", [sample], NAMES)


FILES = {
    "coco": {
        "images": [{"id": 1, "file_name": "{}"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9]}],
        "categories": [{"id": 1, "name": "car"}],
    },
    "via": {
        "x": {
            "filename": "{}",
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 2, "y": 2, "width": 9, "height": 9},
                    "region_attributes": {"class": "car"},
                }
            ],
        }
    },
    "labelme": {"imagePath": "{}", "shapes": [{"label": "car", "points": [[2, 2], [9, 2], [9, 9]]}]},
}
"""A file of each format for one image, whose name goes into the braces."""


def annotated(folder: Path, kind: str, image: str) -> Path:
    write_image(folder / image, picture(1))
    (folder / "annotations.json").write_text(json.dumps(FILES[kind]).replace("{}", image))
    return folder / "annotations.json"


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("place", ["yolo", "deep/yolo", ".", "..", "new/../yolo"])
def test_nothing_is_written_where_the_images_of_a_file_are(kind: str, place: str, tmp_path: Path) -> None:
    source = annotated(tmp_path / "data", kind, "a.png")
    with pytest.raises(UserError, match="(lies in|is|holds) the input .*; give a place apart from it, such as "):
        export_dataset(source, tmp_path / "data" / place)
    assert {path.name for path in tmp_path.rglob("*")} == {"data", "a.png", "annotations.json"}


@pytest.mark.parametrize("kind", ["coco", "via"])
def test_a_folder_beside_that_of_the_images_is_fine(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = annotated(tmp_path / "data", kind, "images/a.png")
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(UserError, match="^--out images/yolo lies in the input images; .*, such as yolo$"):
        export_dataset(Path("annotations.json"), Path("images/yolo"))
    export_dataset(source, tmp_path / "data" / "yolo")
    export_dataset(Path("annotations.json"), Path("yolo"))
    assert set(rows_of(tmp_path / "data" / "yolo")) == {"a"}


@pytest.mark.parametrize("listed", [False, True])
def test_nothing_is_written_where_a_data_yaml_has_its_images(listed: bool, tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "a.png", picture(1))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "list.txt").write_text(f"{tmp_path}/photos/a.png\n")
    place = "list.txt" if listed else "../photos"
    (tmp_path / "data" / "data.yaml").write_text(f"train: {place}\nval: missing\nnames: [car]\n")
    with pytest.raises(UserError, match="lies in the input .*photos; give"):
        export_dataset(tmp_path / "data", tmp_path / "photos" / "yolo")
    export_dataset(tmp_path / "data", tmp_path / "yolo")


@pytest.mark.parametrize("layout", ["yolo", "voc", "imagefolder", "webdataset"])
def test_a_split_is_chosen_and_an_unknown_one_refused(source: Path, tmp_path: Path, layout: str) -> None:
    export_dataset(source, tmp_path / "a", layout=layout)
    export_dataset(tmp_path / "a", tmp_path / "b", split="val")
    assert own_splits(tmp_path / "b") == ["val"]
    with pytest.raises(UserError, match="^--split test: .*a has no such split; it has train, val$"):
        export_dataset(tmp_path / "a", tmp_path / "c", split="test")
    with pytest.raises(UserError, match="^--images is for JSON files, but .*a is a folder"):
        export_dataset(tmp_path / "a", tmp_path / "c", images=source)


def test_the_folder_of_a_file_s_images_must_be_there(tmp_path: Path) -> None:
    source = annotated(tmp_path / "data", "coco", "images/a.png")
    for images in (tmp_path / "nothing", source):
        with pytest.raises(UserError, match="^--images .* is no folder; give the folder of the JSON file's images$"):
            export_dataset(source, tmp_path / "out", images=images)


@pytest.mark.parametrize("split", ["a:b #", "no", "1", "{x}", "- a", '"q"', "é"])
def test_splits_may_be_called_anything(split: str, tmp_path: Path) -> None:
    export_dataset(annotated(tmp_path / "data", "coco", "images/a.png"), tmp_path / "out", split=split)
    values = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert set(values) == {"train", "val", "names", split}
    assert {values[key] for key in ("train", "val", split)} == {f"images/{split}"}


@pytest.mark.parametrize("split", ["names", "nc", "path", "download"])
def test_a_split_is_no_setting_of_data_yaml(split: str, tmp_path: Path) -> None:
    source = annotated(tmp_path / "data", "coco", "images/a.png")
    with pytest.raises(UserError, match=f"^a split cannot be called '{split}', which is a setting of data.yaml"):
        export_dataset(source, tmp_path / "out", split=split)
    export_dataset(source, tmp_path / "out", split=split, layout="voc")


def test_the_split_of_a_file_is_its_name(tmp_path: Path) -> None:
    source = annotated(tmp_path / "data", "coco", "images/a.png")
    export_dataset(source, tmp_path / "a")
    assert own_splits(tmp_path / "a") == ["train"]
    export_dataset(source, tmp_path / "b", split="extra")
    assert (tmp_path / "b" / "coco" / "extra.json").is_file()


@pytest.mark.parametrize("outs", [("..", "../../new-"), ("/", "/")])
def test_a_place_above_everything_has_one_beside_it(
    outs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = annotated(tmp_path / "data", "coco", "a.png")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(UserError, match=f"holds the input .*, such as {outs[1]}"):
        export_dataset(source, Path(outs[0]))
