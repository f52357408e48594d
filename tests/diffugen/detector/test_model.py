import os
import pickle
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from diffugen.config.settings import DetectorConfig
from diffugen.datasets.folder import write_dataset
from diffugen.detector.model import (
    import_ultralytics,
    load_detector,
    new_detector,
    predict,
    save_detector,
    threshold_of,
    trained_imgsz,
    write_threshold,
)
from diffugen.detector.training import finetune
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.sample import Sample

SIZE_HW = (48, 64)
CONFIG = DetectorConfig(imgsz=64, epochs=2, batch_size=4, learning_rate=1e-3, device="cpu")


def squares(num: int, class_names: list[str]) -> list[Sample]:
    """Bright squares on noise, one per image."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(num):
        image = rng.integers(0, 90, (*SIZE_HW, 3), np.uint8)
        mask = np.zeros((1, *SIZE_HW), bool)
        y, x = rng.integers(2, 20), rng.integers(2, 36)
        mask[0, y : y + 24, x : x + 24] = True
        image[mask[0]] = (250, 40 * (i % 2), 30)
        items.append(Sample.labelled(f"{i}", image, Instances.from_masks(mask, [i % len(class_names)]), "train"))
    return items


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("squares") / "dataset"
    write_dataset(root, squares(8, ["tent", "car"]), ["tent", "car"])
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_detector(new_detector(["car", "bus", "tree"]), path)
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, dataset: Path, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    return finetune(
        base, dataset / "data.yaml", folder / "best.pt", CONFIG, seed=3, workdir=folder / "w", progress=False
    )


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_detector(path).model.state_dict()


def test_a_saved_detector_comes_back(base: Path, tmp_path: Path) -> None:
    first = load_detector(base)
    save_detector(first, tmp_path / "again.safetensors")
    assert first.names == {0: "car", 1: "bus", 2: "tree"}
    for key, value in state(tmp_path / "again.safetensors").items():
        torch.testing.assert_close(value, first.model.state_dict()[key], rtol=0, atol=0)
    assert base.stat().st_size < 7_000_000


def test_a_checkpoint_loads_with_the_classes_of_its_dataset(tuned: Path) -> None:
    yolo = load_detector(tuned)
    assert yolo.names == {0: "tent", 1: "car"}
    assert trained_imgsz(yolo) == 64


def test_a_checkpoint_keeps_the_threshold_that_suits_it(tuned: Path, tmp_path: Path) -> None:
    assert threshold_of(load_detector(tuned)) is None
    copy = tmp_path / "best.pt"
    copy.write_bytes(tuned.read_bytes())
    write_threshold(copy, 0.375)
    marked, plain = load_detector(copy), load_detector(tuned)
    assert threshold_of(marked) == 0.375 and marked.names == plain.names
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, marked.model.state_dict()[key])


def test_the_process_keeps_its_threads(dataset: Path, base: Path, tmp_path: Path) -> None:
    program = f"""
import torch, numpy as np, os
from pathlib import Path
from diffugen.config.settings import DetectorConfig
from diffugen.detector.model import load_detector, predict
from diffugen.detector.training import finetune
torch.set_num_threads(3)
config = DetectorConfig(imgsz=64, epochs=1, batch_size=4, device="cpu")
weights = finetune(Path({str(base)!r}), Path({str(dataset / "data.yaml")!r}), Path({str(tmp_path / "t.pt")!r}), config,
                   seed=3, workdir=Path({str(tmp_path / "w")!r}), progress=False)
trained = torch.get_num_threads()
predict(load_detector(weights), [np.zeros((48, 64, 3), np.uint8)], class_names=["car"], device="cpu")
print("threads", trained, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"])
"""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "threads 3 3 3"


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tuned: Path, dataset: Path, base: Path, tmp_path: Path
) -> None:
    same, other = (
        state(
            finetune(base, dataset / "data.yaml", tmp_path / f"{seed}.pt", CONFIG,
                     seed=seed, workdir=tmp_path / f"w{seed}", progress=False)
        )
        for seed in (3, 4)
    )  # fmt: skip
    expected = state(tuned)
    assert all(torch.equal(value, expected[key]) for key, value in same.items())
    assert not all(torch.equal(value, expected[key]) for key, value in other.items())


def test_class_rows_are_taken_over_by_name(dataset: Path, base: Path, tmp_path: Path) -> None:
    still = CONFIG.model_copy(update={"epochs": 1, "learning_rate": 1e-9})
    out = finetune(
        base, dataset / "data.yaml", tmp_path / "b.pt", still, seed=0, workdir=tmp_path / "w", progress=False
    )
    before, after = state(base), state(out)
    keys = [key for key in before if ".cv3." in key and key.endswith(".2.weight")]
    assert len(keys) == 3
    for key in keys:
        car_before, car_after = before[key][0], after[key].float()[1]
        torch.testing.assert_close(car_after, car_before, rtol=2e-3, atol=2e-3)
        assert not torch.allclose(after[key].float()[0], car_before, atol=1e-2)  # the tent is new
    first = "model.0.conv.weight"
    torch.testing.assert_close(after[first].float(), before[first], rtol=2e-3, atol=2e-3)


def test_an_unfinished_run_leaves_no_trace(tuned: Path, dataset: Path, base: Path, tmp_path: Path) -> None:
    leftovers = tmp_path / "w" / "yolo" / "weights"
    leftovers.mkdir(parents=True)
    (leftovers / "last.pt").write_bytes(b"cut off")
    out = finetune(
        base, dataset / "data.yaml", tmp_path / "o.pt", CONFIG, seed=3, workdir=tmp_path / "w", progress=False
    )
    expected = state(tuned)
    assert all(torch.equal(value, expected[key]) for key, value in state(out).items())


def test_predictions_are_full_size_and_mapped(tuned: Path) -> None:
    yolo = load_detector(tuned)
    images = [item.image for item in squares(3, ["a", "b"])] + [np.zeros((50, 30, 3), np.uint8)]
    options = {"score_threshold": 0.001, "imgsz": 64, "device": "cpu"}
    found = predict(yolo, images, class_names=["car", "tent"], batch_size=2, **options)
    assert [instances.size_hw for instances in found] == [SIZE_HW] * 3 + [(50, 30)]
    assert sum(len(instances) for instances in found) > 0
    own = predict(yolo, images, class_names=["tent", "car"], **options)
    for swapped, plain in zip(found, own, strict=True):
        np.testing.assert_array_equal(swapped.class_ids, 1 - plain.class_ids)
        np.testing.assert_allclose(swapped.scores, plain.scores, atol=1e-4)
    merged = predict(yolo, images, class_names=["vehicle"], class_map={"car": "vehicle"}, **options)
    num_cars = [int((instances.class_ids == 1).sum()) for instances in own]
    assert [len(instances) for instances in merged] == num_cars
    assert not any(instances.class_ids.any() for instances in merged)


def test_classes_that_nobody_asked_for_are_dropped(tuned: Path) -> None:
    images = [item.image for item in squares(2, ["a"])]
    found = predict(load_detector(tuned), images, class_names=["dog"], score_threshold=0.001, imgsz=64, device="cpu")
    assert [len(instances) for instances in found] == [0, 0]
    assert predict(load_detector(tuned), [], class_names=["car"]) == []


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"car": "lorry"}, "'lorry' is none of the classes"),
        ({"ship": "car"}, "the model has no class 'ship'"),
    ],
)
def test_class_maps_must_fit_both_sides(tuned: Path, class_map: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        predict(load_detector(tuned), [], class_names=["car"], class_map=class_map)


def assert_equal(found: Instances, expected: Instances) -> None:
    np.testing.assert_array_equal(found.masks, expected.masks)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_what_is_found_does_not_depend_on_the_neighbours(tuned: Path) -> None:
    """In a batch of several sizes ultralytics pads every image to a square, and finds other things."""
    yolo = load_detector(tuned)
    images = [item.image for item in squares(3, ["a"])]
    mixed = [images[0], images[1][:30], images[2], images[1][:, :40]]
    options = {"class_names": ["tent", "car"], "score_threshold": 0.001, "imgsz": 96, "device": "cpu"}
    together = predict(yolo, mixed, **options)
    alone = [predict(yolo, [image], **options)[0] for image in mixed]
    assert min(len(instances) for instances in alone) > 0
    for found, expected in zip(together, alone, strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize("architecture", ["yolov8n-seg.yaml", "yolo11n-seg.yaml", "yolo26n-seg.yaml"])
def test_a_box_can_count_for_several_classes(architecture: str) -> None:
    """Untrained segmenters of three generations, which think all classes equally likely."""
    torch.manual_seed(0)
    yolo = new_detector(["car", "tent"], architecture)
    image = squares(1, ["a"])[0].image
    options = {"class_names": ["tent", "car"], "score_threshold": 0.001, "imgsz": 64, "device": "cpu"}
    (every,) = predict(yolo, [image], multi_label=True, **options)
    (best,) = predict(yolo, [image], **options)  # the same model, switched back
    assert best.size_hw == every.size_hw == SIZE_HW
    assert len(every) == 2 * len(best) > 0
    assert set(every.class_ids) == {0, 1} and len(set(best.class_ids)) == 1


def test_the_batch_is_halved_when_memory_runs_out(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yolo = load_detector(tuned)
    images = [item.image for item in squares(5, ["a"])]
    options = {"class_names": ["tent", "car"], "score_threshold": 0.001, "imgsz": 64, "device": "cpu"}
    expected = predict(yolo, images, batch_size=1, **options)
    plain, sizes = yolo.predict, []

    def scarce(images, **kwargs):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return plain(images, **kwargs)

    monkeypatch.setattr(yolo, "predict", scarce)
    found = predict(yolo, images, batch_size=4, **options)
    assert sizes == [4, 2, 2, 1]
    assert [len(instances) for instances in found] == [len(instances) for instances in expected]


class Evil:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(UserError, match="not a checkpoint that loads safely"):
            load_detector(tmp_path / name)
    assert not (tmp_path / "PWNED").exists()


def test_weights_that_cannot_be_used_are_reported_in_a_sentence(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        load_detector(tmp_path / "yolov8n-seg.pt")  # which ultralytics would fetch
    (tmp_path / "w.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"must be a file of type \.pt or \.safetensors"):
        load_detector(tmp_path / "w.bin")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="no safetensors file"):
        load_detector(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"data\.yaml"):
        finetune(base, tmp_path / "data.yaml", tmp_path / "o.pt", CONFIG, seed=0, workdir=tmp_path)


def test_ultralytics_does_not_change_how_pillow_fails(tmp_path: Path) -> None:
    import_ultralytics()
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UnidentifiedImageError, match="cannot identify"):
        Image.open(tmp_path / "broken.png")


def test_a_fine_tune_is_silent_and_touches_no_network(dataset: Path, base: Path, tmp_path: Path) -> None:
    script = f"""
import socket
from pathlib import Path

def refuse(*args, **kwargs):
    raise RuntimeError("network")

socket.socket.connect = socket.create_connection = refuse
from PIL import Image, UnidentifiedImageError

from diffugen.config.settings import DetectorConfig
from diffugen.detector.training import finetune
config = DetectorConfig(imgsz=64, epochs=1, batch_size=8, device="cpu")
base, data = Path({str(base)!r}), Path({str(dataset / "data.yaml")!r})
finetune(base, data, Path("out.pt"), config, seed=0, workdir=Path("w"), progress=False)
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # or it would list the machine's fonts anew
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "network" not in done.stderr and "WARNING" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out.pt", "w"]
