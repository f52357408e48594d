"""Tar shards: there and back, and as the library streams them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from executor_job import hash_of
from PIL import Image

from diffugen.cli.main import main
from diffugen.datasets import webdataset
from diffugen.datasets.folder import write_dataset
from diffugen.instances import Instances
from diffugen.sample import Sample


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two splits; a JPEG, an image without objects, overlapping masks, a name with a dot."""
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 2:12, 3:20] = masks[1, 8:18, 10:28] = True
    both, none = Instances.from_masks(masks, [1, 0], [0.5, 0.75]), Instances.from_masks(masks[:0], [], [])
    picture = tmp_path / "photo.jpg"
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(picture)
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    samples = [
        Sample.labelled("a.b", picture, both, "train", {"prompt": "a café", "seed": 3}),
        Sample.labelled("c", pixels, none, "train"),
        Sample.labelled("d", pixels, both, "val"),
    ]
    write_dataset(tmp_path / "data", samples, ["car", "big tent"])
    return tmp_path / "data"


def test_a_dataset_comes_back_as_it_was(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SHARD_IMAGES", 1)
    shards, copy, back = tmp_path / "shards", tmp_path / "copy", tmp_path / "back"
    assert main(["export", str(dataset), "--format", "webdataset", "--out", str(shards)]) == 0
    assert {path.name for path in shards.glob("*.tar")} == {"train-000000.tar", "train-000001.tar", "val-000000.tar"}
    assert main(["export", str(shards), "--out", str(back)]) == 0
    assert main(["export", str(dataset), "--out", str(copy)]) == 0
    assert hash_of(back) == hash_of(copy)
    again = tmp_path / "again"
    assert main(["export", str(back), "--format", "webdataset", "--out", str(again)]) == 0
    assert hash_of(again) == hash_of(shards)


def test_the_library_streams_image_mask_and_json(dataset: Path, tmp_path: Path) -> None:
    import webdataset as library

    shards = tmp_path / "shards"
    assert main(["export", str(dataset), "--format", "webdataset", "--out", str(shards)]) == 0
    stream = library.WebDataset([str(shards / "train-000000.tar")], shardshuffle=False).decode("rgb8")
    first, second = stream
    assert first["json"]["name"] == "a.b" and first["json"]["objects"]["category"] == ["big tent", "car"]
    assert first["jpg"].shape == (20, 30, 3) and second["png"].shape == (20, 30, 3)


def test_damaged_shards_are_named(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = tmp_path / "shards"
    assert main(["export", str(dataset), "--format", "webdataset", "--out", str(shards)]) == 0
    (shards / "train-000000.tar").write_bytes(b"no tar" * 200)
    assert main(["export", str(shards), "--out", str(tmp_path / "back")]) == 2
    assert "has a damaged shard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objects": {"category": ["boat"], "score": [1.0], "segmentation": []}}, "has no class 'boat'"),
        ({"name": "../../x"}, "must be plain file names"),
        ("[" * 100_000, "is damaged"),
    ],
    ids=["class", "name", "depth"],
)
def test_rows_that_cannot_be_ours_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object] | str, sentence: str
) -> None:
    shards = tmp_path / "shards"
    assert main(["export", str(dataset), "--format", "webdataset", "--out", str(shards)]) == 0
    shard = shards / "val-000000.tar"
    with tarfile.open(shard) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(shard, "w") as tar:
        for member, content in members:
            if member.name.endswith(".json"):
                row = change if isinstance(change, str) else json.dumps(json.loads(content) | change)
                content = row.encode()
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert main(["export", str(shards), "--out", str(tmp_path / "back")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and " of val is damaged (" in said and "Traceback" not in said
    assert not (tmp_path / "back").exists()
