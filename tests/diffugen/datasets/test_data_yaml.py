"""data.yaml means what ultralytics takes it to mean, or is refused in a sentence."""

from itertools import pairwise
from pathlib import Path

import pytest

from diffugen.datasets import data_yaml
from diffugen.errors import UserError

SPLITS = "train: images\nval: images\n"


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "data.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [cat, 7]", ["cat", "7"]),
        ("names: {1: dog, 0: cat}", ["cat", "dog"]),
        ("names:\n" + "".join(f"  '{i}': class{i}\n" for i in range(12)), [f"class{i}" for i in range(12)]),
        ("nc: 2", ["class_0", "class_1"]),
        ("nc: 2.0\nnames: [a, b]", ["a", "b"]),
    ],
)
def test_names_are_numbered_as_ultralytics_numbers_them(tmp_path: Path, names: str, expected: list[str]) -> None:
    root = written(tmp_path, SPLITS + names + "\n")
    assert data_yaml.read(root).names == expected
    from diffugen.detector.model import import_ultralytics

    import_ultralytics()
    from ultralytics.data.utils import check_det_dataset

    theirs = check_det_dataset(str(root / "data.yaml"), autodownload=False)["names"]
    assert theirs == dict(enumerate(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPLITS, "no `names`"),
        (SPLITS + "names: piano", "'names' must be a list"),
        (SPLITS + "names: {1: piano, 3: car}", "2 classes, but no number 0"),
        (SPLITS + "names: {0: piano, 2: car}", "2 classes, but no number 1"),
        (SPLITS + "names: {0: piano, b: car}", "has the key 'b'"),
        (SPLITS + "names: {0: piano, '0': car}", "the number 0 twice"),
        (SPLITS + "names: {0: piano, 0: car}", "line 3: the key '0' comes twice"),
        (SPLITS + "names: [piano, piano]", "both called 'piano'"),
        (SPLITS + "names: [yes, no]", "the name of class 0 is True; write a name in quotes"),
        (SPLITS + "names: [[a], b]", "the name of class 0 is a list"),
        (SPLITS + "names: [a]\nnc: 2", "'nc' is 2, but 'names' has 1"),
        (SPLITS + "names: [a]\nnc: many", "'nc' must be the number of classes"),
        ("train: {a: b}\nnames: [a]", "'train' must be a folder, a text file or a list"),
        ("- a\n", "must hold keys"),
        ("names: [", "not valid YAML"),
        ("names: !!python/object/apply:os.system [echo]", "not valid YAML"),
        ("a: !!bool x", "not valid YAML"),
        ("? [a, b]\n: c", "a key is no text or number"),
        ("names: &a [*a]", "alias that holds itself"),
        ("[" * 1000, "nested too deeply|not valid YAML"),
        ("names: [Flügel]\n".encode("latin-1"), "is not UTF-8 text .line 1, maybe Latin-1"),
        ("names: [Flügel]\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("names: [a]\x00", "not valid YAML"),
        ("x: " + "1" * (2**20 + 1), "is larger than 1 MiB"),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data_yaml.read(written(tmp_path, text))


@pytest.mark.parametrize("repeat", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_write_out_to_gigabytes_are_refused(tmp_path: Path, repeat: str) -> None:
    lines = ["a: &a {x: 1}"] + [
        f"{new}: &{new} {repeat.format(', '.join([f'*{old}'] * 9))}" for old, new in pairwise("abcdefghijk")
    ]
    with pytest.raises(UserError, match="100000 values once its aliases are written out"):
        data_yaml.read(written(tmp_path, "\n".join([*lines, "names: *k"])))


def test_an_alias_that_repeats_a_line_is_read(tmp_path: Path) -> None:
    assert data_yaml.read(written(tmp_path, "train: &t images\nval: *t\nnames: [a]")).splits["val"] == ["images"]


def places(root: Path, text: str) -> list[Path]:
    return data_yaml.read(written(root, text + "\nnames: [a]\n")).places("train")


def test_places_are_found_as_ultralytics_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set/train/images").mkdir(parents=True)
    inner = tmp_path / "set/train/images"
    assert places(tmp_path, "train: set/train/images") == [inner]
    assert places(tmp_path, "path: set\ntrain: train/images") == [inner]
    assert places(tmp_path, f"path: {tmp_path / 'set'}\ntrain: train/images") == [inner]
    assert places(tmp_path / "set", "train: ../train/images") == [inner]  # Roboflow: beside data.yaml
    assert places(tmp_path, "train: [set/train/images, images]") == [inner, tmp_path / "images"]
    assert places(tmp_path, "path: /nowhere/else\ntrain: images") == [tmp_path / "images"]  # moved from elsewhere
    monkeypatch.chdir(tmp_path)
    assert places(tmp_path / "set", "path: set\ntrain: train/images") == [inner]  # from the working folder
    with pytest.raises(UserError, match=r"are not at .*gone; correct 'train' in .*data\.yaml"):
        places(tmp_path, "train: gone")
    with pytest.raises(UserError, match="has no split 'train'; its data.yaml names val"):
        places(tmp_path, "val: images")
    assert data_yaml.read(written(tmp_path, "validation: images\nnames: [a]")).splits == {"val": ["images"]}
