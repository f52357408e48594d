"""Phrases are found as whole words among tokens, and nothing is ever cut silently."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TEXT_WIDTH, build_tokenizer
from transformers import CLIPTokenizer

from diffugen.config import ConfigError
from diffugen.prompts import ObjectPhrase, Prompt
from diffugen.tokens import (
    check_prompt,
    content_token_indices,
    object_token_indices,
    phrase_token_indices,
    prompt_tokens,
)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<grand-piano>", "<grand-piano>_1", "<grand-piano>_2", "<tent>"])
    return tokenizer


def prompt_of(text: str, *phrases: str) -> Prompt:
    return Prompt(text, tuple(ObjectPhrase(phrase, phrase) for phrase in phrases))


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
    assert phrase_token_indices(tokenizer, text, phrase) == expected


def test_a_word_is_not_found_inside_another(tokenizer: Any) -> None:
    text = "a skyscraper under a sky"
    positions = phrase_token_indices(tokenizer, text, "sky")
    ids = tokenizer(text).input_ids
    assert tokenizer.convert_ids_to_tokens([ids[index] for index in positions]) == ["sky</w>"]
    with pytest.raises(ConfigError, match="'scraper' is not in the prompt"):
        phrase_token_indices(tokenizer, text, "scraper")
    with pytest.raises(ConfigError, match="'sky' is not in the prompt"):
        phrase_token_indices(tokenizer, "a skyscraper", "sky")


def test_a_placeholder_is_not_its_words(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="'piano' is not in the prompt"):
        phrase_token_indices(tokenizer, "a <grand-piano>", "piano")


def test_occurrences_are_kept_apart(tokenizer: Any) -> None:
    text = "a car and a car"
    assert [phrase_token_indices(tokenizer, text, "car", index) for index in (0, 1)] == [[2], [5]]
    with pytest.raises(ConfigError, match="only 2 times"):
        phrase_token_indices(tokenizer, text, "car", 2)


@pytest.mark.parametrize("phrase", ["", "  "])
def test_an_empty_phrase_is_in_no_prompt(tokenizer: Any, phrase: str) -> None:
    with pytest.raises(ConfigError, match="is not in the prompt"):
        phrase_token_indices(tokenizer, "a car", phrase)


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
    with pytest.raises(ConfigError, match="no separate words"):
        object_token_indices(tokenizer, prompt_of("a red car", "red car", "car"))


def test_expansion_equals_the_pipelines(tiny_pipeline: Any) -> None:
    tiny_pipeline.load_textual_inversion({"<it>": torch.randn(3, TEXT_WIDTH)}, token="<it>")
    text = "a red <it>, and a car"
    converted = tiny_pipeline.maybe_convert_prompt(text, tiny_pipeline.tokenizer)
    assert prompt_tokens(tiny_pipeline.tokenizer, text) == tiny_pipeline.tokenizer.tokenize(converted)


def test_nothing_is_cut_silently(tiny_pipeline: Any) -> None:
    fits = prompt_of("car " * 75, "car")
    check_prompt(tiny_pipeline, fits)
    with pytest.raises(ConfigError, match="76 tokens, but the text encoder reads only 75"):
        check_prompt(tiny_pipeline, prompt_of("car " * 76, "car"))
    with pytest.raises(ConfigError, match="76 tokens"):
        check_prompt(tiny_pipeline, Prompt("a car", negative_text="car " * 76))
    with pytest.raises(ConfigError, match="'tent' is not in the prompt 'a car'"):
        check_prompt(tiny_pipeline, prompt_of("a car", "tent"))


def test_the_vectors_of_a_placeholder_count_towards_the_limit(tokenizer: Any) -> None:
    prompt_tokens(tokenizer, "<grand-piano> " * 25)
    with pytest.raises(ConfigError, match="78 tokens"):
        prompt_tokens(tokenizer, "<grand-piano> " * 26)


@pytest.mark.skipif("DIFFUGEN_TEST_DATA" not in os.environ, reason="DIFFUGEN_TEST_DATA has no folder clip_tokenizer")
def test_on_clips_own_vocabulary() -> None:
    folder = Path(os.environ["DIFFUGEN_TEST_DATA"]) / "clip_tokenizer"
    clip = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    clip.add_tokens(["<grand-piano>", "<grand-piano>_1"])
    assert phrase_token_indices(clip, "a photo of a skyscraper under the sky", "sky") == [10]
    assert phrase_token_indices(clip, "A <grand-piano>, beside a Car!", "car") == [7]
    assert phrase_token_indices(clip, "an art fair, a heart and some art", "art", 1) == [9]
    assert phrase_token_indices(clip, "a zamboni's driver", "zamboni") == [2, 3]


def test_content_words_are_those_outside_the_phrases_that_show_something(tokenizer: Any) -> None:
    prompt = prompt_of("A red car, a skyscraper and a <tent> at the road - 2", "red car")
    positions = content_token_indices(tokenizer, prompt)
    ids = tokenizer(prompt.text).input_ids
    assert tokenizer.decode([ids[index] for index in positions]).replace(" ", "") == "skyscraper<tent>road2"
