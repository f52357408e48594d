"""`diffugen evaluate`: detectors and labels against datasets with truth."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import diffugen.toyworld
from diffugen.cli.main import main
from diffugen.datasets.export import export_dataset
from diffugen.datasets.folder import write_dataset
from diffugen.detector.model import new_detector, save_detector
from diffugen.errors import UserError
from diffugen.evaluation.detector import evaluate_detector
from diffugen.evaluation.scorecard import score_detector, score_labels, table_of
from diffugen.files import read_json
from diffugen.images import write_image
from diffugen.instances import Instances
from diffugen.sample import Sample
from diffugen.toyworld.scene import COMMON_KINDS
from diffugen.toyworld.scenes_dataset import write_scenes

SIZE_HW = (30, 50)
NAMES = ["piano", "car"]
BASE = Path(diffugen.toyworld.__file__).parent / "weights" / "detector.safetensors"


def boxes(*corners: tuple[int, int, int, int], classes: list[int], scores: list[float] | None = None) -> Instances:
    masks = np.zeros((len(corners), *SIZE_HW), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances.from_masks(masks, classes, scores)


A, B = (0, 0, 10, 10), (20, 10, 40, 30)
TRUTH = {"a": boxes(A, B, classes=[0, 1]), "b": boxes(A, classes=[0]), "c": Instances.empty(SIZE_HW)}


def write(folder: Path, labels: dict[str, Instances], split: str, names: list[str] = NAMES) -> Path:
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    write_dataset(folder, [Sample.labelled(name, image, found, split) for name, found in labels.items()], names)
    return folder


def test_labels_are_compared_by_name_whatever_their_split(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    found = {
        "a": boxes(B, (0, 0, 10, 8), classes=[0, 1], scores=[0.9, 0.4]),  # IoU 1 and 0.8; the classes' order differs
        "b": Instances.empty(SIZE_HW),
        "c": boxes(A, classes=[1], scores=[0.3]),  # a false piano
    }
    labels = write(tmp_path / "labels", found, "train", ["car", "piano"])
    scores = score_labels(labels, truth)
    assert (scores["num_images"], scores["num_unlabelled"], scores["split"]) == (3, 0, "val")
    assert scores["classes"] == NAMES
    quality = scores["labels"]
    assert quality["mean_iou"] == pytest.approx(1.8 / 3)
    assert (quality["precision"], quality["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert quality["classes"]["piano"]["precision"] == pytest.approx(1 / 2)
    assert scores["average_precision"]["car"]["mask_map50_95"] == pytest.approx(1)
    assert scores["average_precision"]["piano"]["mask_map50"] == pytest.approx(51 / 101)
    strong = score_labels(labels, truth, score_threshold=0.35)
    assert strong["labels"]["precision"] == pytest.approx(1)
    assert strong["average_precision"] == scores["average_precision"]


def test_images_without_labels_are_counted_not_compared(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", TRUTH, "test")
    labels = write(tmp_path / "labels", {"a": TRUTH["a"], "x": TRUTH["b"]}, "test")
    scores = score_labels(labels, truth, class_names=["piano"])
    assert (scores["num_images"], scores["num_unlabelled"]) == (1, 2)
    assert (scores["labels"]["num_truth"], scores["labels"]["recall"]) == (1, 1)


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", TRUTH, "test")
    with pytest.raises(UserError, match="has none of the images of"):
        score_labels(write(tmp_path / "x", {"x": TRUTH["a"]}, "test"), truth)
    with pytest.raises(UserError, match="have no class in common"):
        score_labels(write(tmp_path / "y", {"a": TRUTH["a"]}, "test", ["dog", "cat"]), truth)
    with pytest.raises(UserError, match=r"truth has no class 'tent'"):
        score_labels(truth, truth, class_names=["tent"])
    small = np.zeros((20, 50, 3), np.uint8)
    write_dataset(tmp_path / "z", [Sample.labelled("a", small, Instances.empty((20, 50)), "test")], NAMES)
    with pytest.raises(UserError, match=r"image 'a' is \(20, 50\) in .*, but \(30, 50\) in"):
        score_labels(tmp_path / "z", truth)


def test_a_coco_file_can_be_the_truth(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    labels = write(tmp_path / "labels", TRUTH, "train")
    scores = score_labels(labels, truth / "coco" / "val.json", images=truth / "images" / "val")
    assert scores["num_images"] == 3 and scores["labels"]["mean_iou"] == 1


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "truth"
    return write_scenes(root, 24, 43_000_000, list(COMMON_KINDS), size_hw=(96, 128), progress=False) and root


def test_a_detector_that_knows_the_classes_scores_high(scenes: Path, tmp_path: Path) -> None:
    names = ["car", "tent"]
    scores = score_detector(BASE, scenes, class_names=names, imgsz=128, device="cpu")
    assert scores["average_precision"]["mean"]["mask_map50"] > 0.8
    assert scores["labels"]["recall"] > 0.7 and scores["labels"]["precision"] > 0.7
    expected = evaluate_detector(BASE, scenes, names, imgsz=128, device="cpu")
    assert scores["average_precision"] == expected


def test_classes_are_mapped_many_to_one(tmp_path: Path) -> None:
    """An untrained detector: every image gets something, and all of it is a car."""
    torch.manual_seed(0)
    save_detector(new_detector(["truck", "van", "tree"]), tmp_path / "w.safetensors")
    truth = write(tmp_path / "truth", TRUTH, "test")
    with pytest.raises(UserError, match="no class in common; give a class map"):
        score_detector(tmp_path / "w.safetensors", truth, device="cpu")
    options = {"class_map": {"truck": "car", "van": "car"}, "imgsz": 64, "device": "cpu", "score_threshold": 0.0}
    scores = score_detector(tmp_path / "w.safetensors", truth, **options)
    assert scores["classes"] == ["car"]
    assert scores["labels"]["num_pred"] > 0 and scores["labels"]["num_truth"] == 1
    with pytest.raises(UserError, match="the model has no class 'ship'"):
        score_detector(tmp_path / "w.safetensors", truth, class_map={"ship": "car"})


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    out = tmp_path / "scores.json"
    assert main(["evaluate", "--labels", str(truth), "--data", str(truth), "--json", str(out)]) == 0
    scores = read_json(out)
    assert scores["average_precision"]["mean"]["box_map50"] == pytest.approx(1)
    printed = capsys.readouterr().out
    assert printed == table_of(scores) + "\n"
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[1:]}
    assert rows["all"] == ["1.000"] * 7 + ["3", "3"]
    assert rows["piano"] == ["1.000"] * 7 + ["2", "2"]


def test_the_command_names_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", "x"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["evaluate", "--data", "x", "--labels", "y", "--map", "a=b"]) == 2
    assert "--map is for --weights" in capsys.readouterr().err
    assert main(["evaluate", "--data", str(tmp_path / "gone"), "--weights", str(BASE)]) == 2
    assert "gone does not exist" in capsys.readouterr().err


def coco_of(dataset: Path) -> Path:
    """The dataset's COCO file, alone beside its images."""
    folder = dataset.parent / "file"
    shutil.copytree(dataset / "images" / "val", folder)
    shutil.copy(dataset / "coco" / "val.json", folder / "a.json")
    return folder / "a.json"


def test_options_without_effect_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    file = coco_of(truth)
    usual = ["evaluate", "--labels", str(truth), "--data"]
    for arguments, sentence in (
        ([str(file), "--split", "val"], f"--split val: {file} is a JSON file, which has no splits; leave it out"),
        ([str(truth), "--split", "new"], f"--split new: {truth} has no such split; it has train, val"),
        ([str(truth), "--images", str(truth)], f"--images is for JSON files, but {truth} is a folder"),
        ([str(file), "--json", str(file.parent / "scores.json")], f"lies in the input {file.parent}; give"),
    ):
        assert main([*usual, *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert main([*usual, str(file), "--images", str(file.parent), "--json", str(tmp_path / "scores.json")]) == 0
    for score in (lambda: score_labels(truth, file, split="x"), lambda: score_detector(BASE, file, split="x")):
        with pytest.raises(UserError, match="--split x: .* is a JSON file"):
            score()


def test_images_of_one_name_in_two_folders_are_distinguished(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number, place in enumerate(("x", "y")):
        (data / "labels" / place).mkdir(parents=True)
        write_image(data / "images" / place / "a.png", np.zeros((30, 50, 3), np.uint8))
        (data / "labels" / place / "a.txt").write_text(f"{number} 0.1 0.1 0.{4 + number} 0.1 0.4 0.8\n")
    (data / "data.yaml").write_text("train: images\nnames: [piano, car]\n")
    scores = score_labels(data, data, split="train")
    assert scores["num_images"] == 2 and scores["labels"]["mean_iou"] == 1
    export_dataset(data, tmp_path / "out")
    for pair in ((tmp_path / "out", data), (data, tmp_path / "out")):
        scores = score_labels(*pair, split="train")
        assert scores["num_images"] == 2 and scores["labels"]["mean_iou"] == 1


def test_labels_of_a_coco_file_need_no_images(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    (tmp_path / "labels.json").write_bytes((truth / "coco" / "val.json").read_bytes())
    scores = score_labels(tmp_path / "labels.json", truth)
    assert scores["num_images"] == 3 and scores["labels"]["mean_iou"] == 1


def test_classes_that_only_one_side_has_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    labels = write(tmp_path / "labels", TRUTH, "val", ["piano", "duck"])
    assert score_labels(labels, truth)["classes"] == ["piano"]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"not measured, as {truth} has no such class: duck",
        f"not measured, as {labels} has no such class: car",
    ]


def test_images_without_labels_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = write(tmp_path / "truth", TRUTH, "val")
    labels = write(tmp_path / "labels", {"a": TRUTH["a"]}, "val")
    assert score_labels(labels, truth)["num_unlabelled"] == 2
    assert f"2 of 3 images of {truth} have no labels and were not measured" in caplog.text
