"""What fuzzers of configs share: valid configs of all three kinds, and values of any type."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from diffugen.config.dataset import DatasetConfig
from diffugen.config.loader import Strict
from textual_inversion.config import ConceptRunConfig
from train_loop import RunConfig

NOT_PER_EXAMPLE = [HealthCheck.function_scoped_fixture]
fuzzed = settings(max_examples=30, suppress_health_check=NOT_PER_EXAMPLE)
mutating = settings(suppress_health_check=NOT_PER_EXAMPLE)
"""As many examples as the profile says: `--hypothesis-profile=bar` has 10,000, see conftest.py."""

PROMPTS = {
    "templates": [{"text": "a {rare} {time}"}, "a {common}"],
    "objects": {"rare": {"piano": ["<piano>"]}, "common": {"car": "red car"}},
    "attributes": {"time": ["at night", ""]},
}
CONCEPT = {"placeholder_token": "<piano>", "initializer_word": "bench", "photos": "photos"}
REDRAWN = {"kind": "img2img", "strength": 1.0, "templates": ["{source}, sunny"], "num_images": 2}
REPAINTED = {"kind": "inpaint", "strength": 1.0, "templates": {"a red {object}": 1}, "num_images": 2}
MASK2FORMER = {"model": "some/mask2former", "class_map": {"car": ["truck", "bus"]}}
VALID: dict[type[Strict], dict[str, Any]] = {
    DatasetConfig: {"model": {"path": "some/model"}, "prompts": PROMPTS, "num_images": 3},
    ConceptRunConfig: {"model": {"path": "some/model"}, "concept": CONCEPT},
    RunConfig: {
        "name": "piano",
        "classes": ["piano", "car"],
        "rare_classes": ["piano"],
        "model": {"path": "some/model"},
        "prompts": PROMPTS,
        "concept": CONCEPT,
        "detector": {"base_weights": "base.pt"},
        "pool": {"folder": "photos", "captions": ["a <piano>"], "objects": {"piano": "<piano>"}},
        "evaluation": {"dataset": "truth"},
        "rounds": {"variations": [REDRAWN, REPAINTED], "filter": {"mask2former": MASK2FORMER}},
    },
}
CLASS_NAMES = re.compile(r"\b\w*(Config|Strict|Concepts|Mapping|Annotated|Discriminator)\b|pydantic|NoneType")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
