"""Prompts from templates: exact shares, no repeats, every combination, counts per class."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffugen.config.loader import validate
from diffugen.config.settings import DatasetPromptsConfig, PromptsConfig
from diffugen.errors import UserError
from diffugen.prompts.prompt import Prompt
from diffugen.prompts.templates import combinations, draw_per_class, num_combinations, sample_prompts


def prompts_config(templates: dict[str, float], objects: Any = None, attributes: Any = None) -> PromptsConfig:
    """A config from template texts with weights."""
    values: dict[str, Any] = {
        "templates": [{"text": text, "weight": weight} for text, weight in templates.items()],
        "objects": objects or {},
        "attributes": attributes or {},
        "negative": "blurry",
    }
    return validate(values, PromptsConfig)


COMMON = {"car": ["red car", "car"], "tent": ["tent"], "bus": ["bus", "coach"]}
RARE = {"piano": ["<grand-piano>"]}
PLACES = ["in a city", "in a desert", "on a beach"]


def test_prompts_say_what_was_drawn() -> None:
    config = prompts_config(
        {"a photo of a {rare} beside a {common} {place}": 1},
        {"rare": RARE, "common": COMMON},
        {"place": PLACES},
    )
    for prompt in sample_prompts(config, 20, seed=3):
        rare, common = prompt.objects
        assert prompt.text == f"a photo of a {rare.text} beside a {common.text} {prompt.attributes['place']}"
        assert (rare.class_name, rare.text) == ("piano", "<grand-piano>")
        assert common.text in COMMON[common.class_name]
        assert prompt.negative_text == "blurry"
        assert prompt.template == config.templates[0].text


def test_prompts_survive_json() -> None:
    config = prompts_config({"a {common} {place}": 1}, {"common": COMMON}, {"place": PLACES})
    for prompt in sample_prompts(config, 5, seed=0):
        assert Prompt.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


def test_templates_come_by_weight_in_mixed_order() -> None:
    config = prompts_config({"a {rare}": 3, "a {common}": 1}, {"rare": RARE, "common": COMMON})
    drawn = [prompt.template for prompt in sample_prompts(config, 40, seed=1)]
    assert Counter(drawn) == {"a {rare}": 30, "a {common}": 10}
    assert drawn != sorted(drawn) and drawn != sorted(drawn, reverse=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_no_combination_comes_twice_before_all_have_come(num: int, seed: int) -> None:
    config = prompts_config({"a {common} and a {common} {place}": 1}, {"common": COMMON}, {"place": PLACES[:2]})
    counts = Counter(prompt.text for prompt in sample_prompts(config, num, seed))
    all_texts = {
        f"a {first} and a {second} {place}"
        for name, firsts in COMMON.items()
        for other, seconds in COMMON.items()
        if other != name
        for first in firsts
        for second in seconds
        for place in PLACES[:2]
    }
    assert set(counts) <= all_texts
    assert max(counts.values()) == -(-num // len(all_texts))
    if num >= len(all_texts):
        assert set(counts) == all_texts
        assert min(counts.values()) == num // len(all_texts)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_classes_are_balanced_whatever_their_number_of_phrases(num: int, seed: int) -> None:
    """As long as the class with the fewest combinations (a tent in 3 places) still has new ones."""
    config = prompts_config({"a {common} {place}": 1}, {"common": COMMON}, {"place": PLACES})
    drawn = Counter(prompt.objects[0].class_name for prompt in sample_prompts(config, num, seed))
    assert max(drawn.values()) - min(drawn.get(name, 0) for name in COMMON) <= 1


def test_a_slot_that_stands_twice_gives_two_classes() -> None:
    config = prompts_config({"a {common} and a {common}": 1}, {"common": COMMON})
    for prompt in sample_prompts(config, 30, seed=5):
        first, second = prompt.objects
        assert first.class_name != second.class_name
        assert prompt.text == f"a {first.text} and a {second.text}"


def test_a_slot_with_one_class_gives_two_phrases() -> None:
    config = prompts_config({"a {x} and a {x}": 1}, {"x": {"car": ["red car", "blue car"]}})
    texts = [prompt.text for prompt in sample_prompts(config, 4, seed=5)]
    assert Counter(texts) == {"a red car and a blue car": 2, "a blue car and a red car": 2}


def test_an_attribute_that_stands_twice_has_one_value() -> None:
    config = prompts_config({"{place} a {rare} {place}": 1}, {"rare": RARE}, {"place": PLACES})
    for prompt in sample_prompts(config, 6, seed=0):
        place = prompt.attributes["place"]
        assert prompt.text == f"{place} a <grand-piano> {place}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {rare} {gap} at night", "a piano at night"),
        ("{gap} a {rare} {gap}", "a piano"),
        ("a {rare} {gap}, at night", "a piano, at night"),
        ("a {rare}, {gap}, at night", "a piano, at night"),
        ("a {rare}, {gap}", "a piano"),
        ("a  {rare}", "a piano"),
    ],
)
def test_an_empty_value_leaves_no_gap(template: str, expected: str) -> None:
    attributes = {"gap": [""]} if "gap" in template else {}
    config = prompts_config({template: 1}, {"rare": {"piano": ["piano"]}}, attributes)
    prompt = sample_prompts(config, 1, seed=0)[0]
    assert prompt.text == expected
    assert prompt.attributes == dict.fromkeys(attributes, "")


def test_phrases_are_left_as_they_are_beside_an_empty_value() -> None:
    config = prompts_config({"{gap} {rare} ,": 1}, {"rare": {"piano": ["  piano ,  black "]}}, {"gap": [""]})
    prompt = sample_prompts(config, 1, seed=0)[0]
    assert prompt.objects[0].text == "piano , black"
    assert prompt.text == "piano , black"


def test_weighted_values_keep_their_shares() -> None:
    config = prompts_config(
        {"a {common} {time} {sky}": 1},
        {"common": COMMON},
        {"time": {"by day": 3, "at night": 1}, "sky": {"clear": 1, "dull": 2}},
    )
    drawn = sample_prompts(config, 48, seed=9)
    assert Counter(prompt.attributes["time"] for prompt in drawn) == {"by day": 36, "at night": 12}
    assert Counter(prompt.attributes["sky"] for prompt in drawn) == {"clear": 16, "dull": 32}
    pairs = Counter((prompt.attributes["time"], prompt.attributes["sky"]) for prompt in drawn)
    assert len(pairs) == 4  # the two are drawn independently


def test_equal_weights_are_no_weights() -> None:
    listed = prompts_config({"a {rare} {place}": 1}, {"rare": RARE}, {"place": PLACES})
    weighted = prompts_config({"a {rare} {place}": 1}, {"rare": RARE}, {"place": dict.fromkeys(PLACES, 2.0)})
    assert sample_prompts(listed, 7, seed=4) == sample_prompts(weighted, 7, seed=4)


def test_templates_without_objects_are_allowed() -> None:
    config = prompts_config({"an empty road {place}": 1}, {}, {"place": PLACES})
    assert all(prompt.objects == () for prompt in sample_prompts(config, 3, seed=0))


def test_the_seed_decides() -> None:
    config = prompts_config({"a {common} {place}": 1}, {"common": COMMON}, {"place": PLACES})
    assert sample_prompts(config, 15, seed=1) == sample_prompts(config, 15, seed=1)
    assert sample_prompts(config, 15, seed=1) != sample_prompts(config, 15, seed=2)
    assert sample_prompts(config, 0, seed=1) == []


def cartesian(config: PromptsConfig) -> DatasetPromptsConfig:
    return DatasetPromptsConfig(**{**dict(config), "mode": "cartesian"})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {common} {place}", 5 * 3),
        ("a {common} and a {common}", 2 * (2 * 1 + 2 * 2 + 1 * 2)),
        ("a {common}, a {common}, a {common}", 6 * 2 * 1 * 2),
        ("a {one} and a {one}", 3 * 2),
        ("{place} a {one} {place}", 3 * 3),
        ("an empty road", 1),
    ],
)
def test_cartesian_gives_every_combination_once(template: str, expected: int) -> None:
    objects = {"common": COMMON, "one": {"car": ["red car", "blue car", "car"]}}
    used_objects = {slot: classes for slot, classes in objects.items() if f"{{{slot}}}" in template}
    attributes = {"place": PLACES} if "{place}" in template else {}
    config = cartesian(prompts_config({template: 1}, used_objects, attributes))
    assert num_combinations(config) == expected
    texts = [draw.prompt().text for draw in combinations(config)]
    assert len(texts) == len(set(texts)) == expected


def test_cartesian_follows_the_order_of_the_config() -> None:
    config = cartesian(prompts_config({"a {rare} {place}": 1, "a {rare}": 1}, {"rare": RARE}, {"place": PLACES}))
    texts = [prompt.text for prompt in sample_prompts(config, 4, seed=0)]
    assert texts == [*(f"a <grand-piano> {place}" for place in PLACES), "a <grand-piano>"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_cartesian_goes_on_in_whole_passes(num: int, seed: int) -> None:
    config = cartesian(prompts_config({"a {common} {place}": 1}, {"common": COMMON}, {"place": PLACES}))
    texts = [prompt.text for prompt in sample_prompts(config, num, seed)]
    every = [draw.prompt().text for draw in combinations(config)]
    assert texts[: num // 15 * 15] == every * (num // 15)
    rest = texts[num // 15 * 15 :]
    assert len(rest) == len(set(rest)) == num % 15
    assert rest == [text for text in every if text in rest]


def test_too_many_combinations_are_an_error() -> None:
    many = [str(number) for number in range(1001)]
    config = cartesian(prompts_config({"a {rare} {a} {b}": 1}, {"rare": RARE}, {"a": many, "b": many}))
    with pytest.raises(UserError, match='"cartesian", which here gives 1002001 combinations; shorten the lists'):
        sample_prompts(config, 3, seed=0)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), st.integers(0, 2**32 - 1))
def test_counts_per_class_are_met_exactly(counts: tuple[int, int, int], seed: int) -> None:
    config = prompts_config(
        {"a {common}": 1, "a {common} and a {common} {place}": 2}, {"common": COMMON}, {"place": PLACES}
    )
    wanted = dict(zip(COMMON, counts, strict=True))
    prompts = [draw.prompt() for draw in draw_per_class(config, wanted, seed)]
    assert Counter(phrase.class_name for prompt in prompts for phrase in prompt.objects) == wanted
    singles = Counter(prompt.text for prompt in prompts if len(prompt.objects) == 1)
    for name, phrases in COMMON.items():  # no phrase comes twice before all of its class have come
        times = [singles[f"a {phrase}"] for phrase in phrases]
        assert max(times) - min(times) <= 1, name


def test_counts_per_class_follow_the_templates_weights() -> None:
    config = prompts_config({"a {common}": 1, "the {common}": 3}, {"common": COMMON})
    prompts = [draw.prompt() for draw in draw_per_class(config, {"car": 4, "tent": 4, "bus": 8}, seed=1)]
    assert Counter(prompt.text.split()[0] for prompt in prompts) == {"a": 4, "the": 12}


def test_counts_that_the_templates_cannot_meet_are_an_error() -> None:
    config = prompts_config({"a {rare} and a {common}": 1}, {"rare": RARE, "common": COMMON})
    with pytest.raises(UserError, match=r"after 6 images no template can ask for what is left \(3 of piano\)"):
        draw_per_class(config, {"piano": 9, "car": 2, "tent": 2, "bus": 2}, seed=0)


def test_slots_that_tell_of_a_source_need_one() -> None:
    config = prompts_config({"{source} at night": 1})
    with pytest.raises(UserError, match=r"'prompts.templates.0' has the slot \{source\}, which describes"):
        sample_prompts(config, 1, seed=0)
    own = prompts_config({"{source} {source_time}": 1}, {}, {"source": ["a road"], "source_time": ["at noon"]})
    assert sample_prompts(own, 1, seed=0)[0].text == "a road at noon"
