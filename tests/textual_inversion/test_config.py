"""What a concept's config accepts."""

from typing import Any

import pytest

from diffugen.config.loader import Strict, validate
from diffugen.errors import UserError
from textual_inversion.config import ConceptConfig, ConceptRunConfig, Concepts


class Several(Strict):
    """A config that may have concepts, as that of a loop."""

    concept: Concepts = ()


REQUIRED = {"placeholder_token": "<grand-piano>", "initializer_word": "truck", "photos": "photos"}


def test_photos_are_next_to_the_config_file(tmp_path) -> None:
    values = {"model": {"path": "someone/model"}, "concept": REQUIRED}
    assert validate(values, ConceptRunConfig, folder=tmp_path).concept[0].photos == tmp_path / "photos"


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
        ({"augment": {"flip": 0.5}}, "'augment' was removed: photos are cropped"),
        ({"height": 100}, "'height' was removed: a concept is learned at the model's own size"),
        ({"lora": {"rank": 4}}, "'lora' is now 'lora_rank', a number"),
        ({"steps": 0}, "steps"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate({**REQUIRED, **settings}, ConceptConfig)


@pytest.mark.parametrize(
    ("folder", "token"), [("grand-piano", "<grand-piano>"), ("my <old> piano", "<my--old--piano>"), ("/", "<concept>")]
)
def test_the_token_is_named_after_the_folder_of_photos(folder: str, token: str) -> None:
    concept = validate({"initializer_word": "truck", "photos": folder}, ConceptConfig)
    assert concept.placeholder_token == token


def test_one_concept_or_several_or_none() -> None:
    other = {**REQUIRED, "placeholder_token": "<harp>"}

    def tokens(concept: Any) -> list[str]:
        return [one.placeholder_token for one in validate({"concept": concept}, Several).concept]

    assert tokens(REQUIRED) == tokens([REQUIRED]) == ["<grand-piano>"]
    assert tokens([REQUIRED, other]) == ["<grand-piano>", "<harp>"] and tokens(None) == []
    allowed = Several.model_json_schema()["properties"]["concept"]["anyOf"]
    assert {choice.get("type", "object") for choice in allowed} == {"object", "array", "null"}
    with pytest.raises(UserError, match=r"'concept\.steps' is 0"):
        tokens({**REQUIRED, "steps": 0})
    with pytest.raises(UserError, match=r"'concept\.1\.stepz'; did you mean 'steps'"):
        tokens([REQUIRED, {**other, "stepz": 3}])
    with pytest.raises(UserError, match="concept"):
        validate({"model": {"path": "someone/model"}, "concept": None}, ConceptRunConfig)
