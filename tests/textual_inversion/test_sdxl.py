"""A concept on SDXL: both text encoders learn, into one file that diffusers reads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TEXT_WIDTH, TEXT_WIDTH_2, build_sdxl_pipeline

from diffugen.config.settings import AttentionConfig, GenerateConfig, ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError
from textual_inversion.learn import Setup, learn_concept


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A tiny SDXL pipeline on disk."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    build_sdxl_pipeline().save_pretrained(folder)
    return ModelConfig(path=str(folder), device="cpu")


def test_both_text_encoders_learn(tmp_path: Path, make_concept, sdxl: ModelConfig, tiny_model: ModelConfig) -> None:
    config = make_concept(
        num_vectors=2,
        steps=6,
        max_norm_ratio=50,
    )
    setup = Setup(sdxl, GenerateConfig(num_inference_steps=1, attention=AttentionConfig(factors=(2, 4))))
    path = learn_concept(config, setup, tmp_path / "out", progress=False)
    learned = load_file(path)
    assert {name: rows.shape for name, rows in learned.items()} == {
        "clip_l": (2, TEXT_WIDTH),
        "clip_g": (2, TEXT_WIDTH_2),
    }
    assert (tmp_path / "out/samples.png").is_file()

    # as diffusers' documentation loads such a file
    pipe = build_sdxl_pipeline()
    for name, tokenizer, encoder in (
        ("clip_l", pipe.tokenizer, pipe.text_encoder),
        ("clip_g", pipe.tokenizer_2, pipe.text_encoder_2),
    ):
        (car,) = tokenizer("car", add_special_tokens=False).input_ids
        initial = encoder.get_input_embeddings().weight[car].detach().clone()
        assert all(not torch.allclose(row, initial, atol=1e-3) for row in learned[name])  # it has learned
        pipe.load_textual_inversion(learned[name], token="<grand-piano>", text_encoder=encoder, tokenizer=tokenizer)
    ours = load_pipeline(sdxl.model_copy(update={"embeddings": (path,)}))
    text = "a photo of a <grand-piano>"
    embeds, pooled = (
        [one.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)[index] for one in (pipe, ours)]
        for index in (0, 2)
    )
    torch.testing.assert_close(*embeds)
    torch.testing.assert_close(*pooled)

    with pytest.raises(UserError, match=r"is for two text encoders \(clip_l and clip_g\).* has one text encoder"):
        load_pipeline(tiny_model.model_copy(update={"embeddings": (path,)}))
