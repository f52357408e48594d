"""Running a network batch by batch, with smaller batches once the GPU's memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_MEMORY_WORDS = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "unable to find an engine to execute")


def map_batches(
    images: Sequence[np.ndarray], batch_size: int, run: Callable[[list[np.ndarray]], list[Result]]
) -> list[Result]:
    """Run on batches of images of one size each, so that no image is padded for the sake of its neighbours.

    Args:
        images: [H, W, 3], of any sizes.
        batch_size: images at a time; halved when the GPU runs out of memory.
        run: from a batch to one result per image.

    Returns:
        One result per image, in their order.

    Raises:
        torch.OutOfMemoryError: one image alone does not fit.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(number)
    return map_groups(by_size.values(), batch_size, lambda batch: run([images[number] for number in batch]))


def map_groups(
    groups: Iterable[Sequence[int]], batch_size: int, run: Callable[[Sequence[int]], Sequence[Result]]
) -> list[Result]:
    """Run on batches of the members of groups, none of which holds members of two.

    Args:
        groups: the numbers from 0 to n - 1, each in one of them.
        batch_size, run, and the error: as for `map_batches`.

    Returns:
        One result per number, in their order.
    """
    results: dict[int, Result] = {}
    for members in groups:
        while members:
            batch = members[:batch_size]
            try:
                found = run(batch)
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error, len(batch)):
                    raise
            else:
                results.update(zip(batch, found, strict=True))
                members = members[len(batch) :]
                continue
            batch_size = len(batch) // 2
            torch.cuda.empty_cache()  # only here: until now the exception held the frames, and they the tensors
            logger.warning("out of GPU memory: going on with %d images at a time", batch_size)
    return [results[number] for number in range(len(results))]


def is_out_of_memory(error: RuntimeError, num_images: int) -> bool:
    """Whether a batch failed for want of GPU memory, which torch does not always say by its own exception.

    cuBLAS and cuDNN, which have no room to work in, have words of their own. Those have other causes as well, and
    smaller batches tell which: of one image alone they are not believed.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return num_images > 1 and any(words in str(error) for words in _MEMORY_WORDS)
