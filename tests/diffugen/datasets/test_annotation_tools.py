"""Files of annotation tools: VIA and LabelMe are read, others are named with the way to convert them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffugen.cli.main import main
from diffugen.datasets.folder import class_names_of, is_dataset, own_splits, read_dataset
from diffugen.errors import UserError
from diffugen.images import write_image

SIZE_HW = (20, 30)
XS, YS = [4, 14, 14, 4], [3, 3, 13, 13]


def region(name: str = "polygon", attributes: Any = None, **shape: Any) -> dict[str, Any]:
    usual = {"all_points_x": XS, "all_points_y": YS} if name == "polygon" and not shape else shape
    return {"shape_attributes": {"name": name, **usual}, "region_attributes": {} if attributes is None else attributes}


def via(path: Path, *regions: Any, as_dict: bool = False, project: bool = False) -> Path:
    write_image(path.parent / "a.png", np.zeros((*SIZE_HW, 3), np.uint8))
    listed = {str(i): entry for i, entry in enumerate(regions)} if as_dict else list(regions)
    value: Any = {"a.png123": {"filename": "a.png", "size": 123, "regions": listed, "file_attributes": {}}}
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": value} if project else value))
    return path


def objects(source: Path, split: str = "train", names: list[str] | None = None) -> list[tuple[int, int]]:
    """Class and area of all objects."""
    rows = read_dataset(source, split, names)
    return [(int(i), int(m.sum())) for _, _, found in rows for i, m in zip(found.class_ids, found.masks, strict=True)]


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("as_dict", [False, True])
def test_via_regions_are_read(tmp_path: Path, as_dict: bool, project: bool, caplog: pytest.LogCaptureFixture) -> None:
    path = via(
        tmp_path / "x.json",
        region(attributes={"class": "piano", "note": "old"}),
        region("rect", {"class": "car"}, x=2, y=2, width=5, height=4),
        region("circle", {"class": {"car": True, "van": False}}, cx=15, cy=10, r=3),
        region("ellipse", {"class": "car"}, cx=15, cy=10, rx=6, ry=2),
        region("point", {"class": "car"}, cx=1, cy=1),
        region("polygon", {"class": "car"}, all_points_x=[1, 2], all_points_y=[1, 2]),
        region("polygon", {"class": "car"}, all_points_x=[1, 2, 3], all_points_y=[1, 2]),
        region(attributes={"note": "no class"}),
        as_dict=as_dict,
        project=project,
    )
    assert class_names_of(path) == ["car", "piano"]
    found = objects(path)
    assert found[:2] == [(1, 100), (0, 20)] and abs(found[2][1] - 28) < 6 and abs(found[3][1] - 38) < 8
    for reason in ("1 without a class", "shape 'point'", "fewer than three points", "no finite numbers"):
        assert reason in caplog.text


def test_via_regions_without_a_class_are_of_the_named_one(tmp_path: Path) -> None:
    """As in Matterport's balloon set, a file for each split."""
    data = tmp_path / "data"
    for split in ("train", "val"):
        (data / split).mkdir(parents=True)
        via(data / split / "via_region_data.json", region(), as_dict=True)
    assert is_dataset(data) and own_splits(data) == ["train", "val"]
    with pytest.raises(UserError, match="name no class; give the one that they show with --classes NAME"):
        class_names_of(data)
    assert main(["export", str(data), "--classes", "balloon", "--out", str(tmp_path / "out")]) == 0
    assert class_names_of(tmp_path / "out") == ["balloon"]
    assert objects(tmp_path / "out", "val") == [(0, 100)]


def test_a_via_class_that_is_in_doubt_is_refused(tmp_path: Path) -> None:
    path = via(tmp_path / "x.json", region(attributes={"colour": "red", "make": "vw"}))
    with pytest.raises(UserError, match="the attributes colour, make, and none is surely the class"):
        class_names_of(path)


def shape(label: Any = "piano", kind: str = "polygon", points: Any = None, **more: Any) -> dict[str, Any]:
    points = [list(point) for point in zip(XS, YS, strict=True)] if points is None else points
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def labelme(path: Path, *shapes: Any, image: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path.with_suffix(".png"), np.zeros((*SIZE_HW, 3), np.uint8))
    value = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image or f"{path.stem}.png"}
    path.write_text(json.dumps(value | {"imageData": None, "imageHeight": 20, "imageWidth": 30}))
    return path


def test_labelme_shapes_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored = io.BytesIO()
    Image.fromarray(np.full((4, 5), 255, np.uint8)).save(stored, "PNG")
    mask = base64.b64encode(stored.getvalue()).decode()
    labelme(
        tmp_path / "a.json",
        shape(),
        shape("car", "rectangle", [[8, 6], [2, 2]]),
        shape("car", "circle", [[15, 10], [18, 10]]),
        shape("car", "mask", [[2, 3], [6, 6]], mask=mask),
        shape("car", "rectangle", [[0, 0], [2, 2]], group_id=4),
        shape("car", "rectangle", [[10, 0], [12, 2]], group_id=4),
        shape("car", "line", [[0, 0], [2, 2]]),
        shape("car", "mask", [[2, 3], [6, 6]], mask="no PNG"),
        shape("car", "rectangle", [[0, 0]]),
        image="..\\photos\\a.png",  # as LabelMe writes it on Windows for files in another folder
    )
    write_image(tmp_path / "b.png", np.zeros((*SIZE_HW, 3), np.uint8))
    assert is_dataset(tmp_path) and class_names_of(tmp_path) == ["car", "piano"]
    found = objects(tmp_path)
    assert abs(found.pop(2)[1] - 28) < 6
    assert found == [(1, 100), (0, 24), (0, 20), (0, 8)]
    assert "1 images have no JSON file of LabelMe and count as background (first: b.png)" in caplog.text
    for reason in ("type 'line'", "whose mask is no PNG", "no finite numbers"):
        assert reason in caplog.text
    assert objects(tmp_path / "a.json", "")[0] == (1, 100)


def test_labelme_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        labelme(tmp_path / split / "a.json", shape(split))
    assert own_splits(tmp_path) == ["train", "val"] and class_names_of(tmp_path) == ["train", "val"]
    assert objects(tmp_path, "val") == [(1, 100)]
    with pytest.raises(UserError, match="no split 'test'; it has train, val"):
        objects(tmp_path, "test")


@pytest.mark.parametrize(
    ("bad", "message"),
    [(shape(None), r"shapes\[0\] has no label"), (3, r"shapes\[0\] has no label")],
)
def test_labelme_shapes_without_a_label_are_refused(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objects(labelme(tmp_path / "a.json", bad))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[{"id": 1, "data": {}, "annotations": []}]',
            "is a Label Studio export; in Label Studio choose Export, then COCO",
        ),
        ('[{"annotation_id": 1, "image": "x", "label": []}]', "is a Label Studio export"),
        ('[{"image_id": 1, "category_id": 1, "segmentation": {}}]', "is a list of COCO results"),
        ('[{"image": "a.png", "annotations": []}]', "is a CreateML file"),
        ('{"info": {}, "categories": {}, "items": []}', "is a Datumaro file; run"),
        ('{"samples": []}', "is a FiftyOne file"),
        ('{"assets": {}}', "is a VoTT project"),
        ('{"images": [], "annotations": []}', "not a COCO instance file: 'categories' is missing"),
        ("[]", "is not a COCO instance file, nor one of LabelMe or VIA"),
        ("{}", "is not a COCO instance file"),
        ("3", "is not a COCO instance file"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ("1" * 5000, "is not valid JSON"),
    ],
)
def test_json_of_others_is_named_with_the_way_to_convert_it(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        class_names_of(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("annotations.xml", ".", r"has annotations\.xml; if CVAT wrote it, export the task as COCO 1\.0"),
        ("annotations.xml", "annotations.xml", "is an XML file; if CVAT wrote it"),
        ("annotations/instances_val.json", ".", "give that file, and the folder of its images with --images"),
        ("train/_annotations.coco.json", ".", "has train/_annotations.coco.json; give that file"),
        ("obj.names", ".", "write a data.yaml"),
        ("data.yaml", "data.yaml", "is a file; give its folder"),
        ("dataset.yaml", ".", "call it data.yaml"),
        ("x.zip", "x.zip", "is an archive; unpack it"),
        ("x.png", ".", "has no data.yaml and is in no other known layout"),
        ("x.png", "gone", "gone does not exist"),
    ],
)
def test_places_without_a_dataset_are_reported_with_their_content(
    tmp_path: Path, file: str, source: str, message: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("x")
    with pytest.raises(UserError, match=message):
        class_names_of(tmp_path / source)


@pytest.mark.parametrize("side", ["imageHeight", "imageWidth"])
def test_labelme_outlines_of_another_size_are_refused(tmp_path: Path, side: str) -> None:
    path = labelme(tmp_path / "a.json", shape())
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {side: None}))
    assert objects(tmp_path) == [(0, 100)]
    path.write_text(json.dumps(value | {side: 600}))
    with pytest.raises(UserError, match=r"a\.png is 30x20 pixels, but .*a\.json says"):
        objects(tmp_path)


def test_files_in_a_wide_encoding_are_known_for_what_they_are(tmp_path: Path) -> None:
    text = '{"version": "5.0.1", "flags": {}, "shapes": [], "imagePath": "a.png"}'
    (tmp_path / "a.json").write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match="a.json is UTF-16 text; save it as UTF-8"):
        class_names_of(tmp_path)
