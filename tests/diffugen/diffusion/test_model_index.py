"""A stranger's model imports nothing of its own, whichever way it is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import save_file
from stability_layout import to_stability

from diffugen.config.settings import ModelConfig
from diffugen.diffusion.model_index import check_model_index
from diffugen.diffusion.pipelines import as_task, load_pipeline
from diffugen.errors import UserError

HELPER = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\nfrom transformers import *\n"


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny pipeline in the working folder, where a module of its own waits to be imported."""
    shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for place in (tmp_path, tmp_path / "model", tmp_path / "model" / "unet", tmp_path / "model" / "feature_extractor"):
        place.mkdir(exist_ok=True)
        (place / "helper.py").write_text(HELPER)
    return tmp_path / "model"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def as_folder(folder: Path, pipe: Any) -> ModelConfig:
    return ModelConfig(path=str(folder), device="cpu")


def as_single_file(folder: Path, pipe: Any) -> ModelConfig:
    save_file(to_stability(pipe), folder.parent / "one.safetensors")
    return ModelConfig(path=str(folder.parent / "one.safetensors"), config=str(folder), device="cpu")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """A function that puts a folder where a hub's files are kept once fetched, and says its id."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(folder: Path) -> str:
        kept = tmp_path / "hub" / "models--somebody--model"
        (kept / "refs").mkdir(parents=True, exist_ok=True)
        (kept / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, kept / "snapshots" / ("0" * 40))
        return "somebody/model"

    return put


WAYS = [as_folder, as_single_file, "hub folder", "hub config"]


@pytest.fixture(params=WAYS, ids=[str(getattr(way, "__name__", way)) for way in WAYS])
def load(request: pytest.FixtureRequest, tiny_pipeline: Any, hub: Callable[[Path], str]) -> Callable[[Path], Any]:
    """A function that loads a pipeline's folder in one of the ways there are."""

    def run(folder: Path) -> Any:
        if request.param == "hub folder":
            return load_pipeline(ModelConfig(path=hub(folder), device="cpu"))
        if request.param == "hub config":
            config = as_single_file(folder, tiny_pipeline)
            return load_pipeline(config.model_copy(update={"config": hub(folder)}))
        return load_pipeline(request.param(folder, tiny_pipeline))

    return run


def test_a_plain_model_is_loaded(folder: Path, load: Callable[[Path], Any]) -> None:
    pipe = load(folder)
    assert type(as_task(pipe, "img2img")).__name__ == "StableDiffusionImg2ImgPipeline"


@pytest.mark.parametrize(
    "index",
    [
        {"feature_extractor": ["helper", "CLIPImageProcessor"]},
        {"safety_checker": ["helper", "CLIPTextModel"]},
        {"unet": ["helper", "UNet2DConditionModel"]},
        {"text_encoder": ["transformers", "AutoModel"]},
        {"tokenizer": ["transformers", "AutoTokenizer"]},
        {"scheduler": ["diffusers.schedulers", "DDIMScheduler"]},
        {"vae": ["pipeline_utils", "os"]},
        {"vae": ["diffusers", "AutoencoderKL", "helper"]},
        {"_class_name": ["helper", "StableDiffusionPipeline"]},
        {"_class_name": "KandinskyCombinedPipeline"},  # fetches what its README names
        {"_class_name": "AutoPipelineForText2Image"},
        {"_class_name": None},
    ],
)
def test_only_classes_of_diffusers_and_transformers(
    index: dict[str, Any], folder: Path, load: Callable[[Path], Any]
) -> None:
    change(folder / "model_index.json", **index)
    with pytest.raises(UserError, match=r"model_index\.json names"):
        load(folder)
    assert not list(folder.parent.rglob("*.ran"))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "helper.Model"}}),
        ("text_encoder/config.json", {"attn_implementation": "somebody/kernel"}),
        ("text_encoder/config.json", {"inner": [{"_attn_implementation": "flash_attention_2"}]}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["helper.Tokenizer", None]}}),
        ("unet/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
    ],
)
def test_configs_ask_for_no_code(file: str, values: dict, folder: Path, load: Callable[[Path], Any]) -> None:
    change(folder / file, **values)
    with pytest.raises(UserError, match="which may import or fetch code"):
        load(folder)
    assert not list(folder.parent.rglob("*.ran"))


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, '"text"'])
@pytest.mark.parametrize("file", ["model_index.json", "text_encoder/config.json", "scheduler/scheduler_config.json"])
def test_damaged_configs_are_one_sentence(content: str, file: str, folder: Path, tiny_pipeline: Any) -> None:
    (folder / file).write_text(content)
    for way in (as_folder, as_single_file):
        with pytest.raises(UserError, match=r"config of a model|cannot be loaded"):
            load_pipeline(way(folder, tiny_pipeline))


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "~/nowhere"])
def test_configs_that_are_not_there(name: str, tiny_pipeline: Any, tmp_path: Path) -> None:
    config = as_single_file(tmp_path / "x", tiny_pipeline).model_copy(update={"config": name})
    with pytest.raises(UserError, match=r"model\.config .* does not exist"):
        load_pipeline(config)


def test_published_indices_are_accepted() -> None:
    """As Stable Diffusion 1.5 and SDXL have them, with the old names of classes."""
    first = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    check_model_index(first, "model")
    second = {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "force_zeros_for_empty_prompt": True}
    check_model_index(first | second | {"_class_name": "StableDiffusionXLPipeline"}, "model")
