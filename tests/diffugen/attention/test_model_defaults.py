"""What a config leaves to the model."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffugen.attention.model_defaults import attention_of_model, warn_of_foreign_size, with_model_defaults
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.errors import UserError
from diffugen.files import write_json


def pipe_of(sample_size: Any, folder: Path = Path("somebody/model")) -> Any:
    unet = SimpleNamespace(config=SimpleNamespace(sample_size=sample_size))
    return SimpleNamespace(unet=unet, vae_scale_factor=8, name_or_path=str(folder))


@pytest.mark.parametrize(
    ("sample_size", "size_hw"), [(64, (512, 512)), (96, (768, 768)), (128, (1024, 1024)), ((16, 24), (128, 192))]
)
def test_the_size_is_the_models(sample_size: Any, size_hw: tuple[int, int]) -> None:
    pipe = pipe_of(sample_size)
    assert with_model_defaults(GenerateConfig(), pipe).size_hw == size_hw
    assert with_model_defaults(GenerateConfig(height=256), pipe).size_hw == (256, size_hw[1])


def test_without_a_model_the_size_is_not_known() -> None:
    with pytest.raises(ValueError, match="not resolved"):
        _ = GenerateConfig(height=64).size_hw


def test_a_folder_says_which_attention_counts(tmp_path: Path) -> None:
    assert attention_of_model(AttentionConfig(), pipe_of(64)) == AttentionConfig(
        blocks=("down", "up"), factors=(1, 2, 4), self_attention_factor=0
    )
    write_json(tmp_path / "attention.json", {"//": "measured", "blocks": ["up"], "self_attention_factor": 1})
    own = AttentionConfig(blocks=("up",), factors=(1, 2, 4), self_attention_factor=1)
    assert attention_of_model(AttentionConfig(), pipe_of(64, tmp_path)) == own
    given = AttentionConfig(blocks=("down",), self_attention_factor=0, presence=True)
    filled = attention_of_model(given, pipe_of(64, tmp_path))
    assert filled == given.model_copy(update={"factors": (1, 2, 4)})


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "attention.json", {"blokcs": ["up"]})
    with pytest.raises(UserError, match="unknown setting 'blokcs'; did you mean 'blocks'"):
        attention_of_model(AttentionConfig(), pipe_of(64, tmp_path))


@pytest.mark.parametrize(
    ("size_hw", "warns"), [((512, 512), False), ((512, 768), False), ((768, 768), True), ((256, 256), True)]
)
def test_a_size_that_the_model_was_not_made_for_is_a_warning(
    size_hw: tuple[int, int], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_foreign_size(GenerateConfig(height=size_hw[0], width=size_hw[1]), pipe_of(64))
    assert ("made for 512x512 pixels" in caplog.text) is warns
