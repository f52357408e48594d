"""Damaged datasets of every format: they are read, or refused in one sentence; no traceback, no hang.

`--hypothesis-profile=bar` tries 300 of each format, 2,100 in all.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffugen.datasets import imagefolder, voc
from diffugen.datasets.export import export_dataset
from diffugen.datasets.folder import write_dataset
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample

EXAMPLES = 300 if settings.get_current_profile_name() == "bar" else 12
SECONDS = 120  # an example takes hundredths

FORMATS = ("yolo", "yolo and coco", "coco", "voc", "imagefolder", "via", "labelme")
TOKENS = [
    "nan",
    "inf",
    "-1",
    "1e999",
    "0",
    "2",
    "",
    "{}",
    "[",
    "- ",
    "null",
    ": ",
    "0" * 400,
    "9" * 25,
    "../../x",
    "/etc",
]
TOKENS += [
    "\x00",
    "\ufeff",
    "é",
    "&a",
    "*a",
    "!!python/object:os.system",
    "images/val",
    "<",
    "#",
    "\n",
    "background",
    "/etc",
]
VALUES = [
    None,
    True,
    -1,
    0,
    2,
    1e308,
    10**30,
    "",
    "1",
    "../x",
    "/etc/passwd",
    "\x00",
    [],
    {},
    [[]],
    [1, 2, 3, 4],
    {"a": 1},
]
VALUES += [{"a": 1}, float("nan"), float("inf"), [[0, 0, 9, 0, 9, 9]], {"size": [16, 24], "counts": "1"}, "x" * 300]


def samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 16, 24), bool)
    masks[0, 2:9, 3:12] = masks[1, 8:14, 14:22] = True
    masks[0, 4:6, 5:8] = False
    for number, (split, class_ids) in enumerate([("train", [0, 1]), ("train", []), ("val", [1])]):
        image = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
        instances = Instances.from_masks(masks[: len(class_ids)], class_ids)
        yield Sample.labelled(f"im{number}", image, instances, split)


def write_tools(folder: Path, kind: str) -> None:
    """An image with the file of an annotation tool."""
    points = [(3, 2), (12, 2), (12, 9), (3, 9)]
    folder.mkdir()
    Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(folder / "im.png")
    if kind == "labelme":
        shape = {"label": "piano", "points": points, "shape_type": "polygon", "group_id": None}
        value: Any = {"shapes": [shape], "imagePath": "im.png", "imageHeight": 16, "imageWidth": 24}
        (folder / "im.json").write_text(json.dumps(value))
        return
    x, y = zip(*points, strict=True)
    shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
    circle = {"name": "circle", "cx": 12, "cy": 8, "r": 4}
    regions = [{"shape_attributes": one, "region_attributes": {"class": "piano"}} for one in (shape, circle)]
    value = {"im.png100": {"filename": "im.png", "size": 100, "regions": regions, "file_attributes": {}}}
    (folder / "via_region_data.json").write_text(json.dumps(value))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good dataset of each format."""
    root = tmp_path_factory.mktemp("datasets")
    names = ["piano", "car"]
    write_dataset(root / "yolo and coco", samples(), names)
    shutil.copytree(root / "yolo and coco", root / "yolo", ignore=shutil.ignore_patterns("coco", "annotations"))
    shutil.copytree(root / "yolo and coco" / "images" / "train", root / "coco")
    shutil.copy(root / "yolo and coco" / "coco" / "train.json", root / "coco" / "instances.json")
    voc.write(root / "voc", samples(), names)
    imagefolder.write(root / "imagefolder", samples(), names)
    for kind in ("via", "labelme"):
        write_tools(root / kind, kind)
    return root


def source_of(folder: Path, kind: str) -> Path:
    return folder / "instances.json" if kind == "coco" else folder


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every dict and list with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def change_json(data: st.DataObject, content: bytes) -> bytes:
    try:
        value = json.loads(content)
    except ValueError:
        return change_bytes(data, content)
    if not (every := list(places(value))):
        return json.dumps(data.draw(st.sampled_from(VALUES))).encode()
    owner, key = data.draw(st.sampled_from(every))
    how = data.draw(st.sampled_from(["replace", "replace", "remove", "double"]))
    if how == "replace":
        owner[key] = data.draw(st.sampled_from(VALUES) | st.floats() | st.text(max_size=5))
    elif how == "remove":
        del owner[key]
    elif isinstance(owner, list):
        owner.append(owner[key])
    else:
        owner[data.draw(st.text(max_size=5))] = owner[key]
    return json.dumps(value).encode()


def change_bytes(data: st.DataObject, content: bytes) -> bytes:
    at = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(at, min(len(content), at + 9)))
    new = data.draw(st.sampled_from(TOKENS).map(str.encode) | st.binary(max_size=6))
    return content[:at] + new + content[end:]


def change_lines(data: st.DataObject, content: bytes) -> bytes:
    """Another word anywhere."""
    words = content.decode(errors="replace").replace("\n", " \n ").split(" ")
    words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(TOKENS) | st.text(max_size=4))
    return " ".join(words).encode()


def change_file(data: st.DataObject, path: Path) -> None:
    content = path.read_bytes()
    how = data.draw(
        st.sampled_from(["content", "content", "content", "cut", "empty", "gone", "folder", "link", "name"])
    )
    if how == "content":
        change = {".json": change_json, ".txt": change_lines, ".yaml": change_lines}.get(path.suffix, change_bytes)
        path.write_bytes(change(data, content))
    elif how in ("cut", "empty"):
        path.write_bytes(content[: data.draw(st.integers(0, len(content))) if how == "cut" else 0])
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to(data.draw(st.sampled_from([path.name, ".", "/dev/zero", "nowhere"])))
        elif how == "name":
            name = data.draw(st.sampled_from(["é.png", "a b", path.name.upper(), f"{path.stem}.json", "x" * 200]))
            path.with_name(name).write_bytes(content)


@contextmanager
def limited() -> Iterator[None]:
    """Fail where something hangs."""

    def ring(number: int, frame: Any) -> None:
        raise AssertionError(f"no end after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_datasets_are_read_or_refused(kind: str, data: st.DataObject, datasets: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, limited():
        work = Path(folder, "in")
        shutil.copytree(datasets / kind, work)
        for _ in range(data.draw(st.integers(1, 3))):
            if not (files := sorted(p for p in work.rglob("*") if p.is_file() and not p.is_symlink())):
                break
            change_file(data, data.draw(st.sampled_from(files)))
        try:
            export_dataset(source_of(work, kind), Path(folder, "out"))
        except UserError as error:
            assert 0 < len(str(error)) < 1500 and "\n" not in str(error)
