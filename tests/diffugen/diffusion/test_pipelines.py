"""Pipelines load from folders without unpickling, and every mistake is one clear sentence."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from stability_layout import to_stability
from tiny_models import TEXT_WIDTH

from diffugen.attention.extract import generate_with_attention
from diffugen.config.settings import GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt


def config_of(path: Path | str, **settings: Any) -> ModelConfig:
    return ModelConfig(path=str(path), device="cpu", **settings)


@pytest.fixture
def half_folder(make_tiny_pipeline: Any, tmp_path: Path) -> Path:
    """The tiny pipeline as shipped weights are: float16."""
    make_tiny_pipeline().to(dtype=torch.float16).save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def test_a_single_file_makes_the_same_image(tiny_pipeline: Any, tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    """In Stability's layout, as checkpoints are shared; configs and tokenizer from a local folder."""
    save_file(to_stability(tiny_pipeline), tmp_path / "tiny.safetensors")
    pipe = load_pipeline(config_of(tmp_path / "tiny.safetensors", config=str(tiny_pipeline_dir)))
    assert type(pipe) is StableDiffusionPipeline and pipe.safety_checker is None
    settings = GenerateConfig(height=64, width=96, num_inference_steps=2)
    prompts = [Prompt("a red car on a road", (ObjectPhrase("red car", "car"),))]
    ((image, attention),) = generate_with_attention(pipe, prompts, [1], settings)
    ((expected, heat),) = generate_with_attention(tiny_pipeline, prompts, [1], settings)
    assert (image == expected).all()
    assert (attention.heatmaps[0].values == heat.heatmaps[0].values).all()


def test_a_single_file_of_something_else(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other.safetensors' cannot be loaded"):
        load_pipeline(config_of(tmp_path / "other.safetensors", config=str(tiny_pipeline_dir)))


def test_every_component_gets_the_configured_dtype(half_folder: Path) -> None:
    pipe = load_pipeline(config_of(half_folder))
    assert isinstance(pipe, StableDiffusionPipeline)
    assert {
        parameter.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for parameter in part.parameters()
    } == {torch.float32}
    assert pipe.safety_checker is None
    assert pipe._progress_bar_config["disable"]
    assert load_pipeline(config_of(half_folder, dtype="bfloat16")).text_encoder.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_precision_files_are_read_where_they_are_wanted_or_alone(
    half_folder: Path, tiny_pipeline_dir: Path, dtype: str, tmp_path: Path
) -> None:
    """Folders have both kinds, or one of them; here the half-precision weights are zeros."""
    pipe = load_pipeline(config_of(half_folder))
    with torch.no_grad():
        for weight in pipe.unet.parameters():
            weight.zero_()
    pipe.save_pretrained(tmp_path / "only", variant="fp16")
    shutil.copytree(tiny_pipeline_dir, tmp_path / "both")
    shutil.copytree(tmp_path / "only", tmp_path / "both", dirs_exist_ok=True)
    only, both = (load_pipeline(config_of(tmp_path / name, dtype=dtype)).unet for name in ("only", "both"))
    assert only.dtype == both.dtype == getattr(torch, dtype)
    assert not only.conv_in.weight.any()
    assert bool(both.conv_in.weight.any()) is (dtype == "float32")


def test_on_a_cpu_low_memory_is_for_the_decoder_alone(tiny_pipeline_dir: Path) -> None:
    pipe = load_pipeline(config_of(tiny_pipeline_dir, low_memory=True))
    assert pipe.vae.use_slicing and pipe.vae.use_tiling and pipe.device.type == "cpu"


def test_the_scheduler_is_chosen(tiny_pipeline_dir: Path) -> None:
    assert isinstance(load_pipeline(config_of(tiny_pipeline_dir)).scheduler, DDIMScheduler)
    pipe = load_pipeline(config_of(tiny_pipeline_dir, scheduler="dpm++"))
    assert isinstance(pipe.scheduler, DPMSolverMultistepScheduler)
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"


def test_embeddings_are_loaded(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    save_file({"<one>": torch.ones(2, TEXT_WIDTH)}, tmp_path / "one.safetensors")
    torch.save({"<two>": torch.full((TEXT_WIDTH,), 2.0)}, tmp_path / "two.pt")
    files = (tmp_path / "one.safetensors", tmp_path / "two.pt")
    pipe = load_pipeline(config_of(tiny_pipeline_dir, embeddings=files))
    assert pipe.tokenizer.tokenize(pipe.maybe_convert_prompt("a <one> <two>", pipe.tokenizer)) == [
        "a</w>",
        "<one>",
        "<one>_1",
        "<two>",
    ]
    rows = pipe.text_encoder.get_input_embeddings().weight[-3:]
    assert rows[:, 0].tolist() == [1, 1, 2]


def test_an_embedding_of_another_model_is_refused(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    save_file({"<one>": torch.ones(2, 768)}, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match=f"'<one>' .* has 768 dimensions, .* has {TEXT_WIDTH}"):
        load_pipeline(config_of(tiny_pipeline_dir, embeddings=(tmp_path / "one.safetensors",)))


def test_a_token_that_exists_is_refused(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    save_file({"<one>": torch.ones(1, TEXT_WIDTH)}, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match=r"'<one>' .* already known"):
        load_pipeline(config_of(tiny_pipeline_dir, embeddings=(tmp_path / "one.safetensors",) * 2))


def test_a_lora_is_loaded(tiny_pipeline: Any, tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    adapter = LoraConfig(r=2, target_modules=["attn2.to_k"], init_lora_weights=False)
    tiny_pipeline.unet.add_adapter(adapter)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(tiny_pipeline.unet))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    pipe = load_pipeline(config_of(tiny_pipeline_dir, lora=tmp_path / "pytorch_lora_weights.safetensors"))
    assert len(pipe.get_active_adapters()) == 1
    with pytest.raises(UserError, match=r"model.lora .*missing.safetensors' is not an existing"):
        load_pipeline(config_of(tiny_pipeline_dir, lora=tmp_path / "missing.safetensors"))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c", "model.safetensors"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(UserError, match=r"model.path .* does not exist; give a pipeline folder"):
        load_pipeline(config_of(name))


def test_a_hub_id_that_cannot_be_had() -> None:
    """Tests are offline."""
    with pytest.raises(UserError, match=r"model.path 'no-such-owner/no-such-model' cannot be loaded") as caught:
        load_pipeline(config_of("no-such-owner/no-such-model"))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index.json"):
        load_pipeline(config_of(tmp_path))


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"model.path .* cannot be loaded"):
        load_pipeline(config_of(tmp_path / "model.safetensors"))


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes(pickle.dumps(Trap(fired)))
    with pytest.raises(UserError, match="pickled checkpoint"):
        load_pipeline(config_of(checkpoint))
    folder = tmp_path / "pipeline"
    shutil.copytree(tiny_pipeline_dir, folder)
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        weights = folder / part / f"{name}.safetensors"
        backup = weights.read_bytes()
        weights.unlink()
        trap = folder / part / ("pytorch_model.bin" if part == "text_encoder" else f"{name}.bin")
        trap.write_bytes(checkpoint.read_bytes())
        with pytest.raises(UserError, match=r"model.path .* cannot be loaded"):
            load_pipeline(config_of(folder))
        weights.write_bytes(backup)
    assert not fired.exists()
