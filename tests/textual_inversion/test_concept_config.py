"""What a concept's config accepts."""

from typing import Any

import pytest

from diffugen.config import ConfigError, validate
from textual_inversion.config import ConceptConfig, ConceptRunConfig

REQUIRED = {"placeholder_token": "<grand-piano>", "initializer_word": "truck", "photos": "photos"}


def test_photos_are_beside_the_config_file(tmp_path) -> None:
    values = {"model": {"path": "someone/model"}, "concept": REQUIRED}
    assert validate(values, ConceptRunConfig, folder=tmp_path).concept.photos == tmp_path / "photos"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placeholder_token": "piano"}, "placeholder_token"),
        ({"placeholder_token": "<grand piano>"}, "placeholder_token"),
        ({"templates": ["a photo"]}, "exactly one"),
        ({"templates": ["a {} and a {}"]}, "exactly one"),
        ({"templates": ["a {} in {place}"]}, "exactly one"),
        ({"templates": []}, "templates"),
        ({"initialiser_word": "truck"}, "did you mean 'initializer_word'"),
        ({"augment": {"flip": 0.5}}, r"augment\.flip"),
        ({"height": 100}, "height"),
        ({"steps": 0}, "steps"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate({**REQUIRED, **settings}, ConceptConfig)
