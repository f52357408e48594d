"""`diffugen label` and `predict` by workers: the same files as by one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from executor_job import hash_of
from PIL import Image

from diffugen.cli.main import main
from diffugen.datasets.folder import read_samples
from diffugen.executor import local_pool
from diffugen.files import read_json
from diffugen.outputs import MARKER
from diffugen.toyworld.scenes_dataset import write_scenes

DETECTOR = str(Path(__file__).parents[3] / "diffugen/toyworld/weights/detector.safetensors")
WORKERS = "--executor=num_workers=2,shard_size=1"


@pytest.fixture(autouse=True)
def two_workers_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process computes with one thread too: sums by two can differ in their last bits."""
    monkeypatch.setattr(local_pool, "num_cores", lambda: 2)
    monkeypatch.setattr(local_pool, "USER_THREADS", None)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes as a dataset; read only."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", 18, 5, ["car", "tent"], progress=False)


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> Path:
    """Their images, of two kinds, and one that cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted((scenes / "images" / "test").iterdir())[:4]):
        Image.open(path).save(folder / f"{number}.{'tif' if number == 1 else 'png'}")
    (folder / "broken.png").write_text("no image")
    return folder


@pytest.mark.parametrize("command", ["predict", "label"])
def test_workers_find_what_one_process_finds(
    command: str, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone, workers = tmp_path / "alone", tmp_path / "workers"
    line = [command, str(photos), "--weights", DETECTOR, "--overlays", "--device", "cpu"]
    assert main([*line, "--out", str(alone)]) == main([*line, "--out", str(workers), WORKERS]) == 0
    assert hash_of(workers) == hash_of(alone) and read_json(alone / MARKER)["command"] == command
    assert caplog.text.count("left out 1 of 5 images") == 2
    assert not (tmp_path / ".workers.shards").exists()


def test_a_dataset_keeps_its_splits_and_provenance(scenes: Path, tmp_path: Path) -> None:
    line = ["label", str(scenes), "--weights", DETECTOR, "--classes", "tent,car", "--device", "cpu"]
    assert main([*line, "--out", str(tmp_path / "alone")]) == 0
    assert main([*line, "--out", str(tmp_path / "workers"), "--executor=num_workers=1"]) == 0
    assert hash_of(tmp_path / "workers") == hash_of(tmp_path / "alone")
    assert sum(len(sample.instances) for sample, _ in read_samples(tmp_path / "workers", "test")) > 5


def test_wrong_settings_are_sentences(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", str(photos), "--weights", DETECTOR, "--out", str(tmp_path / "out")]
    for given, words in (("num_worker=2", "num_workers"), ("address=auto", "kind 'ray'")):
        with pytest.raises(SystemExit):
            main([*line, f"--executor={given}"])
        assert words in capsys.readouterr().err
