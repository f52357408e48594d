"""The word that a concept starts from, where the user gives none."""

from pathlib import Path

import pytest

from diffugen.config.loader import validate
from diffugen.config.settings import ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError
from diffugen.toyworld.photos import write_photos
from textual_inversion.config import ConceptConfig, ConceptRunConfig
from textual_inversion.start_word import choose_start_word

PIPELINE = Path(__file__).parents[2] / "diffugen/toyworld/weights/pipeline"


def test_the_word_for_what_the_photos_show_is_chosen(tmp_path: Path) -> None:
    photos = write_photos("car", tmp_path / "photos", 4, 5)[0].parent
    pipe = load_pipeline(ModelConfig(path=str(PIPELINE), device="cpu"))
    config = ConceptConfig(photos=photos)
    assert choose_start_word(config, pipe, ["bench", "xq", "car", "house", "car"], seed=0) == "car"
    with pytest.raises(UserError, match=r"initializer_word is missing, and the model knows none of the words xq, zz"):
        choose_start_word(config, pipe, ["xq", "zz"], seed=0)


def test_learning_alone_has_no_words_to_choose_from() -> None:
    values = {"model": {"path": "x"}, "concept": {"photos": "photos"}}
    with pytest.raises(UserError, match=r"'concept.initializer_word' is missing; give a word"):
        validate(values, ConceptRunConfig)
