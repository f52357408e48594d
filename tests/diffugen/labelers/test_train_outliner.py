"""Training of the outliner: exact resume, and going on from weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffugen.errors import UserError
from diffugen.labelers import train_outliner
from diffugen.labelers.outliner_readings import Reading
from diffugen.labelers.train_outliner import train
from diffugen.masks.outline.network import OutlineNet, load_network


def write_readings(folder: Path, num: int = 4) -> list[Path]:
    """Bright squares on a dark image, and heat where they are."""
    paths = []
    for number in range(num):
        truth = np.zeros((1, 48, 48), bool)
        truth[0, 8 : 30 + number, 10:36] = True
        image = np.where(truth[0][..., None], 200, 30).repeat(3, axis=2).astype(np.uint8)
        heat = truth[:, ::4, ::4].astype(np.float32)
        path = folder / f"{number}.npz"
        Reading(image, truth, heat, heat, truth, np.zeros(1, np.int64), np.zeros(1, np.int64)).save(path)
        paths.append(path)
    return paths


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path).state_dict()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four steps in a folder of their own, two to a checkpoint."""
    monkeypatch.setattr(train_outliner, "_VALIDATION", 16)
    paths = write_readings(tmp_path)

    def run(name: str, **options: Any) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        out = tmp_path / name / "outliner.safetensors"
        settings: dict[str, Any] = {"steps": 4, "batch_size": 2, "save_every": 2, "seed": 0, **options}
        train(paths, out, tmp_path / name, {}, device=torch.device("cpu"), **settings)
        return out

    return run


def test_a_stopped_training_ends_with_the_same_weights(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights_of(run("whole"))
    save = train_outliner._save_checkpoint

    def stopped(path: Path, state: Any) -> None:
        save(path, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_outliner, "_save_checkpoint", stopped)
        run("stopped")
    resumed = weights_of(run("stopped"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_training_goes_on_from_weights_and_writes_their_average(run: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = OutlineNet()
    with torch.no_grad():
        start.to_mask.bias.fill_(-3.0)
    found = weights_of(run("further", steps=2, start=start))
    assert (found["to_mask.bias"] + 3).abs().max() < 0.1, "two steps change little"
    trained = torch.load(tmp_path / "further/checkpoint.pt", weights_only=True)
    name = "to_mask.weight"
    averaged = trained["average"][f"module.{name}"]
    assert not torch.equal(averaged, trained["network"][name]) and trained["average"]["n_averaged"] == 2
    torch.testing.assert_close(found[name], (averaged + start.state_dict()[name]) / 2, atol=1e-3, rtol=1e-2)
    with pytest.raises(UserError, match=r"checkpoint.pt is of a training with another --start"):
        run("further", steps=4)
