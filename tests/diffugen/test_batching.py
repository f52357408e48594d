"""Batches are halved when the GPU's memory runs out, and the results stay those of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from diffugen.attention import extract as attention
from diffugen.attention.extract import read_attention
from diffugen.batching import map_batches, map_groups
from diffugen.prompts.prompt import ObjectPhrase, Prompt


class Scarce:
    """Gives numbers back; more than `limit` at a time are too much."""

    def __init__(self, limit: int, error: Exception | None = None) -> None:
        self.limit, self.tried = limit, list[list[int]]()
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.tried.append(list(batch))
        if len(batch) > self.limit:
            raise self.error
        return [10 * number for number in batch]


def test_a_batch_is_halved_until_it_fits_and_stays_small(caplog: pytest.LogCaptureFixture) -> None:
    run = Scarce(2)
    assert map_groups([[0, 2, 4, 5, 6], [1, 3, 7]], 4, run) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert run.tried == [[0, 2, 4, 5], [0, 2], [4, 5], [6], [1, 3], [7]]
    assert caplog.messages == ["out of GPU memory: going on with 2 images at a time"]


def test_one_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        map_groups([[0, 1]], 2, Scarce(0))


@pytest.mark.parametrize(
    "words",
    [
        "GET was unable to find an engine to execute this computation",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_libraries_that_lack_memory_say_so_in_words_of_their_own(words: str) -> None:
    assert map_groups([[0, 1]], 2, Scarce(1, RuntimeError(words))) == [0, 10]
    with pytest.raises(RuntimeError, match=words[:20]):  # with one image it may as well be something else
        map_groups([[0, 1]], 2, Scarce(0, RuntimeError(words)))


def test_other_errors_halve_nothing() -> None:
    run = Scarce(1, RuntimeError("expected 2 rows"))
    with pytest.raises(RuntimeError, match="expected 2 rows"):
        map_groups([[0, 1]], 2, run)
    assert run.tried == [[0, 1]]


def test_images_share_a_batch_with_those_of_their_size_only() -> None:
    images = [np.zeros((size, 8, 3), np.uint8) for size in (8, 9, 8)]
    shapes: list[set[int]] = []

    def run(batch: list[np.ndarray]) -> list[int]:
        shapes.append({len(image) for image in batch})
        return [len(image) for image in batch]

    assert map_batches(images, 4, run) == [8, 9, 8]
    assert shapes == [{8}, {9}]


def test_attention_is_read_in_smaller_batches(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [np.full((64, 96, 3), shade, np.uint8) for shade in (0, 100, 200)]
    prompts = [Prompt("a red car", (ObjectPhrase("red car", "car"),))] * 3
    expected = read_attention(tiny_pipeline, images, prompts)
    read = attention._read_batch

    def scarce(pipe: Any, part: Sequence[np.ndarray], *given: Any) -> Any:
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(pipe, part, *given)

    monkeypatch.setattr(attention, "_read_batch", scarce)
    for found, whole in zip(read_attention(tiny_pipeline, images, prompts), expected, strict=True):
        np.testing.assert_allclose(found.heatmaps[0].values, whole.heatmaps[0].values, rtol=5e-3)  # rounding
