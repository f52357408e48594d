"""The toy world keeps its promises: exact masks, limits on size and hiding, determinism, closed wording."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from diffugen.toyworld import render
from diffugen.toyworld.captions import caption_with_phrases
from diffugen.toyworld.rarity import closest_training_kind
from diffugen.toyworld.render import Rendered, silhouette, unoccluded_masks
from diffugen.toyworld.scene import (
    COMMON_KINDS,
    INVENTED_KINDS,
    PLACES,
    RARE_KINDS,
    TIMES,
    TRAINING_KINDS,
    WEATHERS,
    sample_scene,
)

SIZES_HW = [(128, 128), (96, 160), (160, 96), (256, 192)]


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_masks_are_disjoint_of_allowed_size_and_at_most_40_percent_hidden(size_hw):
    for seed in range(60):
        scene = sample_scene(seed, num_objects=1 + seed % 3)
        rendered = render(scene, size_hw)
        full = unoccluded_masks(scene, size_hw)
        assert rendered.image.shape == (*size_hw, 3)
        assert rendered.masks.sum(axis=0).max() <= 1
        for mask, whole in zip(rendered.masks, full, strict=True):
            assert 0.02 <= mask.mean() <= 0.25
            assert (mask & whole).sum() >= 0.6 * whole.sum()


@pytest.mark.parametrize("kind", RARE_KINDS + COMMON_KINDS)
def test_objects_lie_inside_the_image(kind):
    mask = render(sample_scene(3, kinds=[kind], num_objects=1)).masks[0]
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_the_nearer_object_hides_the_other_in_image_and_mask():
    scene = next(
        s
        for s in (sample_scene(i, num_objects=2, time="day", weather="clear") for i in range(200))
        if (unoccluded_masks(s).all(axis=0)).sum() > 60
    )
    full, seen = unoccluded_masks(scene), render(scene).masks
    shared = full.all(axis=0)
    owners = seen[:, shared].sum(axis=1)
    assert owners.max() >= 0.9 * shared.sum()


def test_same_seed_same_picture_in_another_process():
    code = (
        "import hashlib;from diffugen.toyworld import *;"
        "r=render(sample_scene(5));print(hashlib.md5(r.image.tobytes()+r.masks.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    rendered = render(sample_scene(5))
    assert hashlib.md5(rendered.image.tobytes() + rendered.masks.tobytes()).hexdigest() == there
    assert (render(sample_scene(6)).image != rendered.image).any()


def test_220_invented_names_are_words_of_their_own():
    assert len(set(INVENTED_KINDS)) == 220
    assert all(4 <= len(word) <= 7 and word.isalpha() for word in INVENTED_KINDS)
    assert len(set(TRAINING_KINDS + RARE_KINDS)) == 220 + len(COMMON_KINDS) + 3


def test_default_sampling_shows_no_rare_kind_and_everything_else():
    scenes = [sample_scene(seed) for seed in range(3000)]
    kinds = [thing.kind for scene in scenes for thing in scene.objects]
    assert set(kinds) == set(TRAINING_KINDS)
    assert 0.55 < np.mean([kind in COMMON_KINDS for kind in kinds]) < 0.65
    assert {s.place for s in scenes} == set(PLACES)
    assert {s.time for s in scenes} == set(TIMES)
    assert {s.weather for s in scenes} == set(WEATHERS)


def test_twins_are_few_and_differ_in_colour():
    crowds = [s for s in (sample_scene(seed) for seed in range(3000)) if len(s.objects) > 1]
    twins = [s for s in crowds if len({thing.kind for thing in s.objects}) < len(s.objects)]
    assert 0 < len(twins) <= 0.1 * len(crowds)
    for scene in twins:
        looks = [(thing.kind, thing.colour) for thing in scene.objects]
        assert len(set(looks)) == len(looks)
        phrases = caption_with_phrases(scene, 0)[1]
        assert len(set(phrases)) == len(phrases)


def test_captions_contain_their_phrases_and_fit_their_articles():
    texts = []
    for seed in range(500):
        scene = sample_scene(seed)
        text, phrases = caption_with_phrases(scene, seed)
        texts.append(text)
        assert len(phrases) == len(scene.objects)
        for phrase, thing in zip(phrases, scene.objects, strict=True):
            assert phrase in text and phrase.endswith(thing.kind)
            assert f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}" in text
    assert sum(len(text.split()) <= 5 for text in texts) > 50


def test_required_kinds_and_overrides_are_kept():
    scene = sample_scene(1, required_kinds=["rubber-duck"], num_objects=2, place="beach", time="night", colour="pink")
    assert (scene.place, scene.time) == ("beach", "night")
    assert (scene.objects[0].kind, scene.objects[0].colour) == ("rubber-duck", "pink")
    assert len(scene.objects) == 2 and scene.objects[1].kind in TRAINING_KINDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ["zeppelin"]}, "kind='zeppelin' is unknown"),
        ({"num_objects": 4}, "num_objects=4 is out of range 1 to 3"),
        ({"place": "moon"}, "place='moon' is unknown"),
        ({"colour": "mauve"}, "colour='mauve' is unknown"),
        ({"kinds": []}, "kinds=.. is empty"),
    ],
)
def test_sampling_refuses_what_it_does_not_know(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_scene(0, **arguments)


def test_rendered_refuses_masks_of_another_shape():
    good = render(sample_scene(0))
    with pytest.raises(ValueError, match="masks are"):
        Rendered(good.image, good.masks[:, :-1], good.scene)


@pytest.mark.parametrize("rare", RARE_KINDS)
def test_no_training_kind_is_a_rare_one(rare):
    kind, overlap = closest_training_kind(rare)
    assert kind in TRAINING_KINDS and 0.2 < overlap < 0.8
    assert silhouette(rare, 64).shape == (64, 64)
