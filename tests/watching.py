"""Settings that differ in what of the model's attention counts."""

from __future__ import annotations

from typing import Any

from diffugen.config.settings import GenerateConfig


def watching(settings: GenerateConfig, **attention: Any) -> GenerateConfig:
    """The settings with others of `attention`."""
    return settings.model_copy(update={"attention": settings.attention.model_copy(update=attention)})
