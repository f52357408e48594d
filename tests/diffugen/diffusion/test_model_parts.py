"""A pipeline that lacks something is told before it makes pictures of nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffugen.config.settings import ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_scheduler(name: str, **settings: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path, index = folder / "scheduler" / "scheduler_config.json", folder / "model_index.json"
        kept = {} if name.startswith("Flow") else json.loads(path.read_text())
        path.write_text(json.dumps(kept | {"_class_name": name} | settings))
        index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", name]}))

    return change


def without_part(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = folder / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {name: [None, None]}))

    return change


def with_half_the_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file(dict(list(weights.items())[: len(weights) // 2]), path, metadata={"format": "pt"})


def with_a_smaller_text_encoder(folder: Path) -> None:
    config, path = folder / "text_encoder" / "config.json", folder / "text_encoder" / "model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 100}))
    weights = load_file(path)
    key = next(key for key in weights if "token_embedding" in key)
    save_file(weights | {key: weights[key][:100].clone()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("tokenizer/tokenizer.json"), "has no tokenizer that knows words"),
        (without("tokenizer/tokenizer_config.json"), "takes longer texts than its text encoder"),
        (without_part("tokenizer"), "no tokenizer that knows words|cannot be loaded"),
        (without_part("text_encoder"), "has no text_encoder|cannot be loaded"),
        (without_part("vae"), "has no vae|cannot be loaded"),
        (
            with_scheduler("FlowMatchEulerDiscreteScheduler"),
            "scheduler FlowMatchEulerDiscreteScheduler, which is not for",
        ),
        (with_scheduler("KarrasVeScheduler"), "scheduler KarrasVeScheduler, which is not for"),
        (with_scheduler("DPMSolverMultistepScheduler", use_flow_sigmas=True), "which is not for"),
        (with_scheduler("DDIMScheduler", prediction_type="flow_prediction"), "models that predict 'flow_prediction'"),
        (with_half_the_weights, "of the .* weights of its unet"),
        (with_a_smaller_text_encoder, "but a text encoder of 100"),
    ],
)
def test_what_lacks_is_named(
    change: Callable[[Path], None], sentence: str, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(UserError, match=sentence):
        load_pipeline(ModelConfig(path=str(tmp_path / "model"), device="cpu"))


def test_the_scheduler_of_the_settings_does_not_hide_what_the_model_is(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    """Built of a flow-matching config, any other would take noise levels that the model was not trained with."""
    shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    with_scheduler("FlowMatchEulerDiscreteScheduler")(tmp_path / "model")
    with pytest.raises(UserError, match="which is not for Stable Diffusion's kind"):
        load_pipeline(ModelConfig(path=str(tmp_path / "model"), device="cpu", scheduler="ddim"))


def test_a_model_in_shards_is_complete(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    folder = tmp_path / "model" / "unet"
    unet = UNet2DConditionModel.from_pretrained(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    pipe = load_pipeline(ModelConfig(path=str(tmp_path / "model"), device="cpu"))
    assert all(map(torch.equal, pipe.unet.parameters(), unet.parameters()))
