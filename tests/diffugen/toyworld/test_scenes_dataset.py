from pathlib import Path

import numpy as np
import pytest

from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.errors import UserError
from diffugen.files import read_jsonl
from diffugen.toyworld import render
from diffugen.toyworld.scene import sample_scene
from diffugen.toyworld.scenes_dataset import main, write_scenes

CLASSES = ["grand-piano", "car", "tent"]


def test_scenes_are_written_with_exact_masks_and_captions(tmp_path: Path) -> None:
    write_scenes(
        tmp_path / "d",
        12,
        5,
        CLASSES,
        rare="grand-piano",
        rare_fraction=0.5,
        size_hw=(64, 96),
        progress=False,
    )
    samples = list(read_dataset(tmp_path / "d", "test"))
    captions = read_jsonl(tmp_path / "d" / "captions.jsonl")
    assert class_names_of(tmp_path / "d") == CLASSES
    assert [sample[0] for sample in samples] == [row["name"] for row in captions]
    for (_, image, instances), row in zip(samples, captions, strict=True):
        assert image.shape == (64, 96, 3)
        assert [CLASSES[i] for i in instances.class_ids] == row["kinds"]
        assert all(phrase in row["caption"] for phrase in row["phrases"])
    assert sum("grand-piano" in row["kinds"] for row in captions) == 6


def test_masks_are_the_renderers(tmp_path: Path) -> None:
    write_scenes(tmp_path / "d", 1, 3, ["car", "tent"], size_hw=(64, 96), progress=False)
    ((_, image, instances),) = read_dataset(tmp_path / "d", "test")
    rendered = render(sample_scene(3 * 1_000_003, kinds=["car", "tent"]), (64, 96))
    np.testing.assert_array_equal(image, rendered.image)
    np.testing.assert_array_equal(instances.masks, rendered.masks)


def test_seeds_share_no_scene_and_repeat(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_scenes(tmp_path / name, 4, seed, CLASSES, size_hw=(64, 96), progress=False)
    a, b, c = ({image.tobytes() for _, image, _ in read_dataset(tmp_path / name, "test")} for name in "abc")
    assert a == b and not a & c


def test_distractors_go_unlabelled(tmp_path: Path) -> None:
    write_scenes(tmp_path / "d", 20, 1, ["car"], size_hw=(64, 96), distractor_fraction=1.0, progress=False)
    rows = read_jsonl(tmp_path / "d" / "captions.jsonl")
    counts = [len(instances) for _, _, instances in read_dataset(tmp_path / "d", "test")]
    assert counts == [row["kinds"].count("car") for row in rows]
    assert 0 in counts and all(set(row["kinds"]) != {"car"} for row in rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_names": ["car", "zeppelin"]}, "'zeppelin' is no kind"),
        ({"rare": "tent"}, "rare='tent' is not among the classes"),
        ({"num": 0}, "num=0 is out of range"),
        ({"rare": "car", "rare_fraction": 1.5}, "rare_fraction=1.5 is out of range"),
    ],
)
def test_settings_out_of_range_are_reported(tmp_path: Path, settings: dict, message: str) -> None:
    arguments = {"num": 2, "seed": 1, "class_names": ["car"], **settings}
    with pytest.raises(UserError, match=message):
        write_scenes(tmp_path / "d", progress=False, **arguments)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["--out", str(tmp_path / "d"), "--num", "2", "--seed", "4", "--classes", "car,bus", "--size", "64x96"])
    assert "2 scenes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path / "e"), "--num", "2", "--seed", "4", "--classes", "plane"])
    assert "'plane' is no kind" in capsys.readouterr().err
