"""`diffugen label`, `predict` and `export`: what they write, and that mistakes are one sentence and exit code 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from one_sentence import error_of
from PIL import Image

from diffugen.cli.main import build_parser, main
from diffugen.datasets.folder import class_names_of, own_splits, read_dataset, read_samples, splits_of, write_dataset
from diffugen.files import read_json
from diffugen.instances import Instances
from diffugen.labelers.photo_attention import caption_prompt
from diffugen.prompts.prompt import ObjectPhrase
from diffugen.sample import Sample

SIZE_HW = (40, 64)


def box_instances(*class_ids: int) -> Instances:
    """One rectangle per class id, side by side."""
    masks = np.zeros((len(class_ids), *SIZE_HW), bool)
    for number in range(len(class_ids)):
        masks[number, 5 : 20 + number, 4 + 20 * number : 20 + 20 * number] = True
    return Instances.from_masks(masks, class_ids, [0.5 + 0.1 * number for number in range(len(class_ids))])


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.png", "b.jpg")):
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture(number)).save(folder / name)
    return folder


@pytest.fixture
def found_by_detector(monkeypatch: pytest.MonkeyPatch) -> Callable[[Instances], None]:
    """Put a detector of the classes car, tent and bus in place that finds what the test says."""

    def put(instances: Instances) -> None:
        def predict(model: Any, images: list[np.ndarray], **options: Any) -> list[Instances]:
            return [instances for _ in images]

        model = SimpleNamespace(names={0: "car", 1: "tent", 2: "bus"}, ckpt=None)
        for module in ("labelers.detector", "detector.predict_images"):
            monkeypatch.setattr(f"diffugen.{module}.load_detector", lambda _: model)
            monkeypatch.setattr(f"diffugen.{module}.predict", predict)

    return put


def test_predict_writes_masks_and_instances(
    photos: Path, tmp_path: Path, found_by_detector: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = box_instances(2, 0)
    found_by_detector(truth)
    out = tmp_path / "found"
    assert main(["predict", str(photos), "--weights", "best.pt", "--out", str(out)]) == 0
    written = read_json(out / "instances.json")
    assert written["class_names"] == ["car", "tent", "bus"]
    assert [image["file"] for image in written["images"]] == ["a.png", "b.jpg", "b.png"]
    names = [image["name"] for image in written["images"]]
    assert names == ["a", "b_jpg", "b_png"]
    first = written["images"][0]
    assert first["classes"] == ["bus", "car"]
    assert (Instances.from_json({key: first[key] for key in truth.to_json()}).masks == truth.masks).all()
    for name in names:
        with Image.open(out / "masks" / f"{name}.png") as mask:
            assert sorted(np.unique(np.asarray(mask))) == [0, 1, 2]
    assert "3 images, found: car 3 (on 3), bus 3 (on 3)" in capsys.readouterr().out
    assert not (out / "overlays").exists()


def test_predict_takes_images_and_folders(photos: Path, tmp_path: Path, found_by_detector: Any) -> None:
    found_by_detector(box_instances(0))
    Image.fromarray(picture(9)).save(tmp_path / "a.png")
    given = [str(tmp_path / "a.png"), str(photos), "--source", str(photos / "b.png")]
    assert main(["predict", *given, "--model", "best.pt", "--out", str(tmp_path / "found")]) == 0
    written = read_json(tmp_path / "found" / "instances.json")["images"]
    assert sorted(image["file"] for image in written) == ["a.png", "a.png", "b.jpg", "b.png"]
    assert len({image["name"] for image in written}) == 4


@pytest.mark.parametrize("command", ["predict", "label"])
def test_overlays_are_contact_sheets(
    command: str, photos: Path, tmp_path: Path, found_by_detector: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found_by_detector(box_instances(0, 1))
    out = tmp_path / "found"
    for _ in range(2):
        assert main([command, str(photos), "--weights", "best.pt", "--out", str(out), "--overlays"]) == 0
    assert f"overlays: {out / 'overlays'}" in capsys.readouterr().out
    (sheet,) = (out / "overlays").iterdir()
    with Image.open(sheet) as pixels:
        assert pixels.width > 3 * 256 and pixels.height > 256 * SIZE_HW[0] / SIZE_HW[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "predict needs images"),
        (["gone.png"], "gone.png does not exist"),
        (["conf=0.5"], "'conf=0.5' is not an option; write --conf 0.5"),
        (["save_txt=True"], "`diffugen label SOURCE --weights FILE --out DIR` writes label files"),
        (["--format", "coco"], "`diffugen label SOURCE --weights FILE --out DIR` writes label files"),
        (["--save-txt"], "there is no option '--save-txt'"),
        (["--project", "x"], "give the output folder by --out DIR"),
        (["--conf", "25"], "'25' must be a number from 0 to 1"),
    ],
)
def test_options_of_ultralytics_lead_to_ours(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        code = main(["predict", *arguments, "--weights", "best.pt", "--out", str(tmp_path / "found")])
    except SystemExit as stop:
        code = int(str(stop.code))
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1


def test_predict_names_mistakes(
    photos: Path, tmp_path: Path, found_by_detector: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "found")]
    gone = str(tmp_path / "gone.pt")
    assert "gone.pt" in error_of(capsys, main(["predict", str(photos), "--weights", gone, *out]))
    found_by_detector(box_instances(0))
    weights = ["--weights", "best.pt", *out]
    assert "gone does not exist" in error_of(capsys, main(["predict", str(tmp_path / "gone"), *weights]))
    (tmp_path / "empty").mkdir()
    assert "has no images" in error_of(capsys, main(["predict", str(tmp_path / "empty"), *weights]))
    code = main(["predict", str(photos), *weights, "--classes", "car,dog"])
    assert "does not know 'dog'; its classes are car, tent, bus" in error_of(capsys, code)
    for path in photos.iterdir():
        path.write_text("no image")
    assert "a.png cannot be read" in error_of(capsys, main(["predict", str(photos), *weights]))


@pytest.mark.parametrize("command", ["predict", "label"])
def test_a_broken_photo_among_others_is_left_out_with_a_word(
    command: str, photos: Path, tmp_path: Path, found_by_detector: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found_by_detector(box_instances(0))
    (photos / "c.png").write_text("no image")
    (photos / "notes.txt").write_text("no image")
    assert main([command, str(photos), "--weights", "best.pt", "--out", str(tmp_path / "found")]) == 0
    assert "left out 1 of 4 images" in caplog.text and "c.png cannot be read" in caplog.text
    assert "left out 1 .txt (notes.txt)" in caplog.text


LONG = b"x" * 251 + b".png"
ODD_NAMES = (b"a.jpg", b"a.png", b"a_png.webp", b"A.png", b"day/a.png", b"night/a.png", b"caf\xe9.png", LONG)


@pytest.mark.parametrize("command", ["predict", "label"])
def test_every_photo_has_an_output_of_its_own(
    command: str, tmp_path: Path, found_by_detector: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found_by_detector(box_instances(0))
    for number, name in enumerate(ODD_NAMES):
        path = tmp_path / "photos" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    out = tmp_path / os.fsdecode(b"out\xe9")
    options = ["--weights", "best.pt", "--out", str(out), "--recursive"]
    assert main([command, str(tmp_path / "photos"), *options]) == 0
    if command == "predict":
        written = read_json(out / "instances.json")["images"]
        assert {image["file"] for image in written} >= {"day/a.png", "night/a.png", "caf\\xe9.png", "A.png"}
        names = [image["name"] for image in written]
        stems = [{path.stem for path in (out / "masks").iterdir()}] * 2
    else:
        items = [item for item, _ in read_samples(out, "train")]
        assert {item.provenance["parent"] for item in items} >= {"day/a.png", "night/a.png", "caf\\xe9.png", "A.png"}
        names = [item.name for item in items]
        stems = [{path.stem for path in (out / folder / "train").iterdir()} for folder in ("images", "labels")]
    assert len({name.casefold() for name in names}) == len(ODD_NAMES)
    assert stems == [set(names)] * 2


def test_label_a_folder_by_a_detector(photos: Path, tmp_path: Path, found_by_detector: Any) -> None:
    truth = box_instances(1)
    found_by_detector(truth)
    out = tmp_path / "labelled"
    assert main(["label", str(photos), "--weights", "best.pt", "--out", str(out)]) == 0
    rows = list(read_dataset(out, "train"))
    assert [name for name, _, _ in rows] == ["a", "b_jpg", "b_png"]
    assert (rows[0][1] == picture(0)).all()
    assert (rows[0][2].masks == truth.masks).all()
    assert (out / "images" / "train" / "b_jpg.jpg").read_bytes() == (photos / "b.jpg").read_bytes()
    assert (photos / "b.jpg").stat().st_nlink == 1  # the user's own file is copied, not linked


def test_label_a_dataset_keeps_its_splits_and_provenance(tmp_path: Path, found_by_detector: Any) -> None:
    known = {"prompt": "a dog", "seed": 3, "labeler": "attention"}
    items = [Sample.labelled(f"{part}0", picture(0), box_instances(0), part, known) for part in ("train", "val")]
    write_dataset(tmp_path / "data", items, ["dog"])
    found_by_detector(box_instances(1, 2))
    out = tmp_path / "labelled"
    assert main(["label", str(tmp_path / "data"), "--weights", "best.pt", "--out", str(out)]) == 0
    for part in ("train", "val"):
        [(item, _)] = read_samples(out, part)
        assert item.name == f"{part}0"
        assert item.instances.class_ids.tolist() == [1, 2]
        assert item.provenance == known | {"labeler": "detector"}


def test_label_a_folder_by_attention(photos: Path, tmp_path: Path, tiny_pipeline_dir: Path) -> None:
    out = tmp_path / "labelled"
    options = ["--model", str(tiny_pipeline_dir), "--object", "vehicle=red car", "--device", "cpu"]
    assert main(["label", str(photos), *options, "--out", str(out)]) == 0
    assert class_names_of(out) == ["vehicle"]
    rows = list(read_dataset(out, "train"))
    assert len(rows) == 3
    assert all(instances.size_hw == SIZE_HW for _, _, instances in rows)


def test_the_toy_model_has_a_name() -> None:
    words = ["label", "photos", "--model", "toy", "--object", "car=car", "--out", "labelled"]
    assert (Path(build_parser().parse_args(words).model) / "model_index.json").is_file()


def test_label_names_mistakes(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*options: str) -> str:
        return error_of(capsys, main(["label", str(photos), "--out", str(tmp_path / "out"), *options]))

    assert "(a diffusion model); give one" in error()
    assert "(a diffusion model); give one" in error("--weights", "a.pt", "--model", "b")
    assert "(a diffusion model); give one" in error("--weights", "a.pt", "--mask2former", "b")
    assert "at least one --object" in error("--model", "b")
    assert "--object 'car=' has no words" in error("--model", "b", "--object", "car=")
    assert "lacks the words 'red car'" in error("--model", "b", "--object", "car=red car", "--prompt", "a bus")
    assert "--classes and --map are for --weights" in error("--model", "b", "--object", "car", "--classes", "car")
    assert "--map 'car' is not of the form" in error("--weights", "a.pt", "--map", "car")
    assert "Mask2Former gone cannot be loaded" in error("--mask2former", "gone")
    assert "gone.pt" in error("--weights", str(tmp_path / "gone.pt"))


def test_captions_list_objects_in_the_order_of_the_text() -> None:
    prompt = caption_prompt(["piano=grand  piano", "car"], None)
    assert prompt.text == "a photo of a grand piano and a car"
    assert prompt.objects == (ObjectPhrase("grand piano", "piano"), ObjectPhrase("car", "car"))
    assert caption_prompt(["b=tent", "a=car"], "a car, a tent").objects[0].class_name == "a"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    items = [
        Sample.labelled("one", picture(1), box_instances(0, 1), "train"),
        Sample.labelled("two", picture(2), Instances.empty(SIZE_HW), "train"),
        Sample.labelled("three", picture(3), box_instances(1), "test"),
    ]
    write_dataset(tmp_path / "data", items, ["car", "tent"])
    return tmp_path / "data"


@pytest.mark.parametrize("masks", ["rle", "polygon"])
def test_export_from_yolo_and_back_from_coco(dataset: Path, tmp_path: Path, masks: str) -> None:
    for part in ("train", "test"):
        (dataset / "coco" / f"{part}.json").unlink()  # leaves a plain YOLO-seg folder
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["export", str(dataset), "--out", str(first), "--masks", masks]) == 0
    source, images = first / "coco" / "train.json", first / "images" / "train"
    assert main(["export", str(source), "--images", str(images), "--out", str(second), "--split", "val"]) == 0
    assert splits_of(second)  # both give what was there
    rows = {name: (image, instances) for name, image, instances in read_dataset(second, "val")}
    assert set(rows) == {"one", "two"}
    assert (rows["one"][0] == picture(1)).all()
    assert (rows["one"][1].masks == box_instances(0, 1).masks).all()
    assert len(rows["two"][1]) == 0


def test_export_of_chosen_classes_in_a_new_order(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(dataset), "--out", str(out), "--classes", "tent"]) == 0
    assert class_names_of(out) == ["tent"]
    rows = {name: instances for part in ("train", "test") for name, _, instances in read_dataset(out, part)}
    assert {name: len(instances) for name, instances in rows.items()} == {"one": 1, "two": 0, "three": 1}
    assert rows["one"].class_ids.tolist() == [0]


def test_export_names_mistakes(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert "is the input" in error_of(capsys, main(["export", str(dataset), "--out", str(dataset)]))
    code = main(["export", str(dataset), "--out", out, "--classes", "dog"])
    assert "has no class 'dog'; its classes are car, tent" in error_of(capsys, code)
    assert "gone" in error_of(capsys, main(["export", str(tmp_path / "gone"), "--out", out]))
    assert not Path(out).exists()


def test_a_split_that_stands_in_for_another_is_not_a_split(tmp_path: Path, dataset: Path) -> None:
    assert own_splits(dataset) == ["train", "test"]
    write_dataset(tmp_path / "b", [Sample.labelled("x", picture(0), box_instances(0), "val")], ["car"])
    assert own_splits(tmp_path / "b") == ["val"]
