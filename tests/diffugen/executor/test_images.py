"""`diffugen label` and `predict` by workers: the same files as by one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from executor_job import hash_of
from PIL import Image

from diffugen.attention.decoder import PixelDecoder, save_decoder
from diffugen.attention.features import num_features
from diffugen.cli import label
from diffugen.cli.main import main
from diffugen.config.settings import ModelConfig
from diffugen.datasets.folder import read_samples
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.executor import local_pool
from diffugen.executor.images import Workers
from diffugen.files import read_json
from diffugen.instances import Instances
from diffugen.labelers import label_folder
from diffugen.labelers.base import LabelInput
from diffugen.labelers.detector import DetectorLabeler
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


def test_labels_do_not_depend_on_photos_that_cannot_be_read_or_are_links(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch is 16 of the listed photos; what cannot be read leaves it smaller, in this process and in workers."""
    batches: list[int] = []
    alone = DetectorLabeler.label

    def counted(self: DetectorLabeler, inputs: Sequence[LabelInput]) -> list[Instances]:
        batches.append(len(inputs))
        return alone(self, inputs)

    monkeypatch.setattr(DetectorLabeler, "label", counted)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted((scenes / "images" / "test").iterdir())[:18]):
        (folder / f"{number:02d}.png").symlink_to(path)
    (folder / "03.png").unlink()
    (folder / "03.png").write_text("no image")
    (folder / "05.png").unlink()
    (folder / "05.png").symlink_to(folder / "04.png")
    line = ["label", str(folder), "--weights", DETECTOR, "--device", "cpu", "--out"]
    assert main([*line, str(tmp_path / "alone")]) == 0
    assert batches == [15, 2]
    assert main([*line, str(tmp_path / "workers"), "--executor=num_workers=1"]) == 0
    assert hash_of(tmp_path / "workers") == hash_of(tmp_path / "alone")
    for number in (16, 17):  # the whole second batch
        (folder / f"{number}.png").unlink()
        (folder / f"{number}.png").write_text("no image")
    caplog.clear()
    assert main([*line, str(tmp_path / "fewer")]) == 0
    assert batches[2:] == [15] and caplog.text.count("left out 3 of 18 images") == 1


def test_workers_read_attention_with_a_decoder(
    photos: Path, tmp_path: Path, tiny_pipeline_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Workers] = []
    monkeypatch.setattr(label_folder, "label_folder", lambda *_, workers, **__: asked.append(workers))
    pipe = load_pipeline(ModelConfig(path=str(tiny_pipeline_dir)))
    decoder = tmp_path / "decoder.safetensors"
    save_decoder(PixelDecoder(num_features(pipe.unet), ["car"]), decoder, {})
    line = [
        "label",
        str(photos),
        "--model",
        str(tiny_pipeline_dir),
        "--object",
        "car=car",
        "--out",
        str(tmp_path / "o"),
    ]
    for options in ([], ["--decoder", str(decoder)]):
        assert main([*line, *options, "--executor=num_workers=1"]) == 0
    plain, decoded = (workers.job for workers in asked)
    assert plain.identity([]) != decoded.identity([])
    (found,) = decoded.load_find()([np.full((64, 64, 3), 99, np.uint8)])  # as a worker does
    assert isinstance(found, Instances)


def test_records_follow_from_the_models_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    """What a model's folder holds, and the file that draws outlines, may change under one name."""
    asked: list[Workers] = []
    monkeypatch.setattr(label_folder, "label_folder", lambda *_, workers, **__: asked.append(workers))
    monkeypatch.setattr(label, "_labeler", lambda arguments: (None, []))
    model, outliner = tmp_path / "model", tmp_path / "outliner.safetensors"
    model.mkdir()
    (model / "weights").write_text("one")
    outliner.write_text("one")
    monkeypatch.chdir(tmp_path)
    line = ["label", str(photos), "--mask2former", "model", "--outline", "learned=outliner.safetensors"]
    assert main([*line, "--out", str(tmp_path / "out"), "--executor=num_workers=1"]) == 0
    (job,) = [workers.job for workers in asked]
    assert str(outliner) in str(job.settings) and str(model) in str(job.settings)  # not as seen from here
    seen = [job.identity([])]
    for path in (model / "weights", outliner):
        path.write_text("another")
        seen.append(job.identity([]))
    assert seen[0] != seen[1] != seen[2]


@pytest.mark.parametrize("command", ["predict", "label"])
def test_a_second_command_does_not_write_the_same_folder(
    command: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        for workers in ([], [WORKERS]):
            options = ["--weights", DETECTOR, "--device", "cpu", "--out", str(tmp_path / "out"), *workers]
            assert main([command, str(photos), *options]) == 2
            assert f"is in use by process {holder.pid}" in capsys.readouterr().err
        holder.kill()
    assert not (tmp_path / ".out.shards").exists()
    assert main([command, str(photos), *options]) == 0


HOLD = """
import sys
from pathlib import Path
from diffugen.outputs import new_output
with new_output(Path(sys.argv[1]), "predict"):
    print("locked", flush=True)
    sys.stdin.read()
"""
