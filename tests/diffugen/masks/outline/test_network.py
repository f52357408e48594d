"""The network and its file; the learned outliner on top."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffugen.errors import UserError
from diffugen.masks.outline.base import OutlinePrompt
from diffugen.masks.outline.learned import LearnedOutliner
from diffugen.masks.outline.network import CHANNELS, OutlineNet, load_network, save_network

WIDTHS = (8, 8, 8, 8)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_network(OutlineNet(WIDTHS), tmp_path / "outliner.safetensors", {"data": "scenes", "steps": 3})
    return tmp_path / "outliner.safetensors"


def test_a_mask_and_its_quality_per_window() -> None:
    logits, ious = OutlineNet(WIDTHS)(torch.rand(3, CHANNELS, 48, 48))
    assert logits.shape == (3, 48, 48) and ious.shape == (3,)


def test_the_judge_of_a_mask_does_not_change_it() -> None:
    network = OutlineNet(WIDTHS)
    network(torch.rand(2, CHANNELS, 32, 32))[1].sum().backward()
    assert network.to_mask.weight.grad is None and network.down[0][0].weight.grad is None
    assert network.to_iou[0].weight.grad is not None


def test_the_file_is_half_precision_and_says_what_it_was_trained_on(weights: Path) -> None:
    with safe_open(weights, "pt") as file:
        assert json.loads(file.metadata()["record"]) == {"data": "scenes", "steps": 3}
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    torch.manual_seed(0)
    window = torch.rand(2, CHANNELS, 32, 32)
    with torch.inference_mode():
        loaded, made = load_network(weights)(window), OutlineNet(WIDTHS)
        torch.manual_seed(0)
        made = OutlineNet(WIDTHS).eval()(window)
    torch.testing.assert_close(loaded[0], made[0], atol=1e-2, rtol=1e-2)


def test_what_is_no_outliner_is_one_sentence(tmp_path: Path, weights: Path) -> None:
    other, broken, cut = (tmp_path / f"{name}.safetensors" for name in ("other", "broken", "cut"))
    save_file({"x": torch.zeros(1)}, other)
    broken.write_bytes(b"no such thing")
    cut.write_bytes(weights.read_bytes()[:-100])
    for path in (other, broken, cut, tmp_path / "none.safetensors"):
        with pytest.raises(UserError, match=r"outliner .*(loaded|exist).*; give a file that .*train_outliner"):
            load_network(path)
    with safe_open(weights, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file(tensors | {"to_mask.weight": torch.zeros(4, 2, 3, 3)}, other, metadata)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_network(other)
    save_file({name: tensor for name, tensor in tensors.items() if name != "to_mask.bias"}, other, metadata)
    with pytest.raises(UserError, match="without to_mask.bias"):
        load_network(other)
    not_finite = tensors["to_mask.bias"] * float("nan")
    save_file(tensors | {"to_mask.bias": not_finite}, other, metadata)
    with pytest.raises(UserError, match="no numbers"):
        load_network(other)


def test_outlines_have_the_images_size_and_do_not_depend_on_each_other(weights: Path) -> None:
    outliner = LearnedOutliner(weights, "cpu")
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    masks = np.zeros((2, 60, 90), bool)
    masks[0, 10:30, 10:40], masks[1, 30:55, 50:80] = True, True
    prompts = [OutlinePrompt(mask[None]) for mask in masks]
    both = outliner.outline(image, prompts)
    (alone,) = outliner.outline(image, prompts[1:])
    assert [one.probability.shape for one in both] == [(60, 90)] * 2
    assert all(0 <= one.confidence <= 1 for one in both if one.confidence is not None)
    np.testing.assert_allclose(both[1].probability, alone.probability, atol=1e-5)
    assert outliner.outline(image, []) == []
    assert not both[0].mask[:, 80:].any()  # beyond its window
