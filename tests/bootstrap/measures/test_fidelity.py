"""FID and KID, with an Inception network of random weights: its numbers mean nothing, but distances are distances."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from bootstrap.measures.fidelity import check_inception, fid_and_kid
from diffugen.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random Inception weights, as torch-fidelity's file lays them out."""
    path = tmp_path_factory.mktemp("inception") / "random.pt"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception", ["2048"])
    for weight in network.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)  # torch's own start dies out over so many layers
    torch.save(network.state_dict(), path)
    return path


def test_distances_grow_with_the_difference(weights: Path) -> None:
    rng = np.random.default_rng(0)
    dark = [rng.integers(0, 60, (40, 56, 3), dtype=np.uint8) for _ in range(3)]
    bright = [rng.integers(190, 255, (48, 32, 3), dtype=np.uint8) for _ in range(3)]
    same, other = fid_and_kid(dark, dark, weights), fid_and_kid(dark, bright, weights)
    assert set(same) == {"fid", "kid"}
    assert same["fid"] == pytest.approx(0, abs=1e-3 * other["fid"])
    assert other["fid"] > 0 and other["kid"] > same["kid"]


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harm.txt"),))


def test_a_file_that_could_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("harmful.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError, match=r"'evaluation.inception_weights': harmful.pt is no readable file of tensors"):
        check_inception(Path("harmful.pt"))
    assert not Path("harm.txt").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.pt is no readable file of tensors"):
        check_inception(tmp_path / "nothing.pt")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match=r"pipe\.pt is no readable file of tensors"):
        check_inception(tmp_path / "pipe.pt")
