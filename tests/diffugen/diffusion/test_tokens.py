"""Phrases are found as whole words among tokens, and nothing is ever cut silently."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TEXT_WIDTH, build_tokenizer
from transformers import CLIPTokenizer

from diffugen.diffusion.tokens import (
    check_prompt,
    class_prompt,
    content_token_indices,
    object_token_indices,
    prompt_tokens,
)
from diffugen.errors import UserError
from diffugen.prompts.prompt import ObjectPhrase, Prompt


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<grand-piano>", "<grand-piano>_1", "<grand-piano>_2", "<tent>"])
    return tokenizer


def prompt_of(text: str, *phrases: str) -> Prompt:
    return Prompt(text, tuple(ObjectPhrase(phrase, phrase) for phrase in phrases))


def positions_of(tokenizer: Any, text: str, phrase: str) -> list[int]:
    return object_token_indices(tokenizer, prompt_of(text, phrase))[0]


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("a red car on a road", "red car", [2, 3]),
        ("a red car on a road", "Red CAR", [2, 3]),
        ("A Red Car on a road", "red car", [2, 3]),
        ("car", "car", [1]),
        ("a tent, a car.", "car", [5]),
        ("a <grand-piano> at night", "<grand-piano>", [2, 3, 4]),
        ("a <grand-piano>, a car", "car", [7]),
        ("a <tent>beside", "beside", [3]),
        ("a red <grand-piano> at night", "red <grand-piano>", [2, 3, 4, 5]),
        ("a grand piano and a <grand-piano>", "grand piano", [2, 3]),
    ],
)
def test_positions_count_the_start_token(tokenizer: Any, text: str, phrase: str, expected: list[int]) -> None:
    assert positions_of(tokenizer, text, phrase) == expected


def test_a_word_is_not_found_inside_another(tokenizer: Any) -> None:
    text = "a skyscraper under a sky"
    positions = positions_of(tokenizer, text, "sky")
    ids = tokenizer(text).input_ids
    assert tokenizer.convert_ids_to_tokens([ids[index] for index in positions]) == ["sky</w>"]
    with pytest.raises(UserError, match="'scraper' is not in the prompt"):
        positions_of(tokenizer, text, "scraper")
    with pytest.raises(UserError, match="'sky' is not in the prompt"):
        positions_of(tokenizer, "a skyscraper", "sky")


def test_a_placeholder_is_not_its_words(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="'piano' is not in the prompt"):
        positions_of(tokenizer, "a <grand-piano>", "piano")


def test_occurrences_are_kept_apart(tokenizer: Any) -> None:
    text = "a car and a car"
    assert object_token_indices(tokenizer, prompt_of(text, "car", "car")) == [[2], [5]]
    with pytest.raises(UserError, match="no separate words"):
        object_token_indices(tokenizer, prompt_of(text, "car", "car", "car"))


@pytest.mark.parametrize("phrase", ["", "  "])
def test_an_empty_phrase_is_in_no_prompt(tokenizer: Any, phrase: str) -> None:
    with pytest.raises(UserError, match="is not in the prompt"):
        positions_of(tokenizer, "a car", phrase)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a red car beside a car", ("red car", "car")),
        ("a car beside a red car", ("car", "red car")),
        ("a red car beside a car", ("car", "red car")),  # not in the order of the text
        ("a car beside a car", ("car", "car")),
        ("a tent beside a car", ("car", "tent")),
    ],
)
def test_objects_get_tokens_of_their_own(tokenizer: Any, text: str, phrases: tuple[str, ...]) -> None:
    spans = object_token_indices(tokenizer, prompt_of(text, *phrases))
    ids = tokenizer(text).input_ids
    assert [tokenizer.decode([ids[index] for index in span]) for span in spans] == list(phrases)
    assert len({index for span in spans for index in span}) == sum(map(len, spans))


def test_an_object_listed_more_often_than_said_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="no separate words"):
        object_token_indices(tokenizer, prompt_of("a red car", "red car", "car"))


def test_expansion_equals_the_pipelines(tiny_pipeline: Any) -> None:
    tiny_pipeline.load_textual_inversion({"<it>": torch.randn(3, TEXT_WIDTH)}, token="<it>")
    text = "a red <it>, and a car"
    converted = tiny_pipeline.maybe_convert_prompt(text, tiny_pipeline.tokenizer)
    assert prompt_tokens(tiny_pipeline.tokenizer, text) == tiny_pipeline.tokenizer.tokenize(converted)


def test_nothing_is_cut(tiny_pipeline: Any) -> None:
    """A long prompt goes on in further chunks, each with a start and an end token of its own."""
    check_prompt(tiny_pipeline, prompt_of("car " * 75 + "tent", "tent"))
    tokenizer = tiny_pipeline.tokenizer
    assert positions_of(tokenizer, "car " * 74 + "tent", "tent") == [75]
    assert positions_of(tokenizer, "car " * 75 + "tent", "tent") == [78]
    assert positions_of(tokenizer, "car " * 150 + "tent", "tent") == [155]
    assert positions_of(tokenizer, "car " * 74 + "skyscraper", "skyscraper")[0] == 78  # words stay whole
    with pytest.raises(UserError, match="'tent' is not in the prompt 'a car'"):
        check_prompt(tiny_pipeline, prompt_of("a car", "tent"))


def test_the_vectors_of_a_placeholder_count(tokenizer: Any) -> None:
    assert positions_of(tokenizer, "<grand-piano> " * 25 + "car", "car") == [78]


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("a red++ car on a road", "red car", [2, 3]),
        ("a (red car:1.4) on a road", "red car", [2, 3]),
        ("a (red car:1.4) on a road", "road", [6]),
        ("a ((red:1.2) car:0.8) on a road", "red car", [2, 3]),
        ("a red car (on a road)", "road", [7]),  # a bracket without weights is a token
        ("a (red car)1.4 on a (road)", "road", [6]),
        ("a <grand-piano>++ at night", "<grand-piano>", [2, 3, 4]),
        ("a <grand-piano>++ at night", "<grand-piano>++", [2, 3, 4]),
        ("a car++ and a car--", "car", [2]),
    ],
)
def test_weights_are_no_words(tokenizer: Any, text: str, phrase: str, expected: list[int]) -> None:
    assert positions_of(tokenizer, text, phrase) == expected


def test_a_class_prompt_is_the_phrases_and_the_other_content_words() -> None:
    prompt = prompt_of("A (red car:1.4) and a red car, beside a tent++ at night.", "red car", "red car", "<piano>")
    assert class_prompt(prompt) == ["red car", "<piano>", "tent night"]
    assert class_prompt(prompt_of("a road")) == ["road"]


def test_a_class_prompt_needs_no_phrase_in_the_prompt(tiny_pipeline: Any) -> None:
    check_prompt(tiny_pipeline, prompt_of("a car", "tent"), "class_prompt")
    with pytest.raises(UserError, match="has no words"):
        check_prompt(tiny_pipeline, prompt_of("a car", " "), "class_prompt")


@pytest.mark.skipif("DIFFUGEN_TEST_DATA" not in os.environ, reason="DIFFUGEN_TEST_DATA has no folder clip_tokenizer")
def test_on_clips_own_vocabulary() -> None:
    folder = Path(os.environ["DIFFUGEN_TEST_DATA"]) / "clip_tokenizer"
    clip = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    clip.add_tokens(["<grand-piano>", "<grand-piano>_1"])
    assert positions_of(clip, "a photo of a skyscraper under the sky", "sky") == [10]
    assert positions_of(clip, "A <grand-piano>, beside a Car!", "car") == [7]
    assert object_token_indices(clip, prompt_of("an art fair, a heart and some art", "art", "art"))[1] == [9]
    assert positions_of(clip, "a zamboni's driver", "zamboni") == [2, 3]


def test_content_words_are_those_outside_the_phrases_that_show_something(tokenizer: Any) -> None:
    prompt = prompt_of("A red car, a skyscraper and a <tent> at the road - 2", "red car")
    positions = content_token_indices(tokenizer, prompt)
    ids = tokenizer(prompt.text).input_ids
    assert tokenizer.decode([ids[index] for index in positions]).replace(" ", "") == "skyscraper<tent>road2"
