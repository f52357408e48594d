"""Settings that a config leaves to the model: the size of its images, and the attention that counts.

Which attention labels are best read from has to be measured for a model. Its folder can say what was found, in
`attention.json` beside `model_index.json`:

    {"blocks": ["up"], "factors": [1, 2], "self_attention_factor": 1}

All keys are optional; they are those of `generate.attention` in a config. What neither the config nor the folder says
is DAAM's choice (Tang et al. 2023): both blocks, factors 1, 2 and 4, no self-attention.
"""

from __future__ import annotations

import logging
from pathlib import Path

from diffugen.attention.cross_attention import DAAM_FACTORS
from diffugen.attention.hooks import DAAM_BLOCKS
from diffugen.config.loader import load_config
from diffugen.config.settings import AttentionConfig, GenerateConfig
from diffugen.diffusion.native import native_size_hw
from diffugen.diffusion.protocol import Pipeline

logger = logging.getLogger(__name__)

ATTENTION_FILE = "attention.json"

MOST_PIXELS, LEAST_PIXELS = 2.0, 0.5
"""Share of the native number of pixels beyond which images of Stable Diffusion repeat or lose their objects."""


def with_model_defaults(settings: GenerateConfig, pipe: Pipeline) -> GenerateConfig:
    """The settings with everything filled in that they leave to the model."""
    height, width = native_size_hw(pipe)
    return settings.model_copy(
        update={
            "height": settings.height or height,
            "width": settings.width or width,
            "attention": attention_of_model(settings.attention, pipe),
        }
    )


def attention_of_model(settings: AttentionConfig, pipe: Pipeline) -> AttentionConfig:
    """The settings with everything filled in that they leave to the model.

    Raises:
        UserError: the model's `attention.json` has other settings, or wrong values.
    """
    measured = {name: getattr(settings, name) for name in ("blocks", "factors", "self_attention_factor")}
    if None not in measured.values():
        return settings
    path = Path(str(pipe.name_or_path)) / ATTENTION_FILE
    own = load_config(path, AttentionConfig) if path.is_file() else AttentionConfig()
    defaults = {
        "blocks": own.blocks or DAAM_BLOCKS,
        "factors": own.factors or DAAM_FACTORS,
        "self_attention_factor": own.self_attention_factor or 0,
    }
    return settings.model_copy(update={name: defaults[name] for name, value in measured.items() if value is None})


def warn_of_foreign_size(settings: GenerateConfig, pipe: Pipeline) -> None:
    """Log a warning where images are to be much larger or smaller than those that the model was trained on."""
    (height, width), (native_height, native_width) = settings.size_hw, native_size_hw(pipe)
    share = height * width / (native_height * native_width)
    if not LEAST_PIXELS <= share <= MOST_PIXELS:
        logger.warning(
            "generate.height and generate.width are %d and %d, but the model was made for %dx%d pixels; other sizes "
            "draw objects worse or several times: leave the two settings out",
            height, width, native_height, native_width,
        )  # fmt: skip
