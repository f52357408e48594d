"""Samples on disk, and which of them become the validation split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bootstrap.run_folder import RoundFolder
from bootstrap.training_set import choose_validation
from diffugen.errors import UserError
from diffugen.sample import read_samples, write_samples


def test_samples_survive_the_round_trip(tmp_path: Path, make_samples: Callable) -> None:
    folder = RoundFolder(tmp_path / "round_00")
    samples = make_samples(folder.path, [[0], [0, 1], []], rejected={1: "low_iou:car"})
    write_samples(folder.samples, samples)
    again = read_samples(folder.samples)
    assert [sample.to_json() for sample in again] == [sample.to_json() for sample in samples]
    for old, new in zip(samples, again, strict=True):
        np.testing.assert_array_equal(new.instances.masks, old.instances.masks)
        np.testing.assert_array_equal(new.pixels(), old.pixels())
    assert [sample.kept for sample in again] == [True, False, True]
    assert [sample.split for sample in again] == ["train", "", "train"]


def test_a_moved_run_finds_its_images(tmp_path: Path, make_samples: Callable) -> None:
    folder = RoundFolder(tmp_path / "before" / "round_00")
    write_samples(folder.samples, make_samples(folder.path, [[0]]))
    (tmp_path / "before").rename(tmp_path / "after")
    (sample,) = read_samples(RoundFolder(tmp_path / "after" / "round_00").samples)
    assert sample.pixels().shape == (48, 64, 3)


def test_validation_is_a_share_of_the_kept_with_and_without_a_rare_object(
    tmp_path: Path, make_samples: Callable
) -> None:
    samples = make_samples(tmp_path, [[0]] * 10 + [[1]] * 10, rejected={0: "too_few:piano"})
    split = choose_validation(samples, [0], 0.3, seed=1)
    assert [sample.name for sample in split] == [sample.name for sample in samples]
    assert split[0].split == ""
    assert sum(sample.split == "val" for sample in split[:10]) == 3  # of 9 kept
    assert sum(sample.split == "val" for sample in split[10:]) == 3
    assert split == choose_validation(samples, [0], 0.3, seed=1)
    assert split != choose_validation(samples, [0], 0.3, seed=2)


def test_samples_of_one_prompt_stay_together(tmp_path: Path, make_samples: Callable) -> None:
    samples = make_samples(tmp_path, [[0]] * 12)
    prompts = [samples[index // 3].prompt for index in range(12)]
    twins = [replace(sample, prompt=prompt) for sample, prompt in zip(samples, prompts, strict=True)]
    split = choose_validation(twins, [0], 0.25, seed=0)
    assert sum(sample.split == "val" for sample in split) == 3
    assert len({sample.prompt.text for sample in split if sample.split == "val"}) == 1


@pytest.mark.parametrize("images", [[[0], [0]], [[0], [0], [1]]])
def test_the_smallest_split_still_has_a_rare_object_on_both_sides(
    tmp_path: Path, make_samples: Callable, images: list
) -> None:
    split = choose_validation(make_samples(tmp_path, images), [0], 0.1, seed=0)
    rare = [sample.split for sample in split if 0 in sample.class_ids]
    assert sorted(rare) == ["train", "val"]


def test_photos_only_train(tmp_path: Path, make_samples: Callable) -> None:
    samples = make_samples(tmp_path, [[0]] * 8)
    photos = [replace(sample, task="photo") for sample in samples[:4]]
    split = choose_validation([*photos, *samples[4:]], [0], 0.5, seed=0)
    assert [sample.split for sample in split[:4]] == ["train"] * 4
    assert sum(sample.split == "val" for sample in split[4:]) == 2


def test_a_large_share_leaves_something_to_train_on(tmp_path: Path, make_samples: Callable) -> None:
    split = choose_validation(make_samples(tmp_path, [[0]] * 3), [0], 0.95, seed=0)
    assert "train" in [sample.split for sample in split]


def test_too_few_kept_images_are_an_error_with_a_remedy(tmp_path: Path, make_samples: Callable) -> None:
    samples = make_samples(tmp_path, [[0], [0], [1]], rejected={0: "too_few:piano"})
    with pytest.raises(UserError, match=r"kept 1 of 3 images with a rare object.*rounds.filter.min_score"):
        choose_validation(samples, [0], 0.2, seed=0)
