"""Running a network over images of many sizes, batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


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
    results: dict[int, Result] = {}
    for numbers in by_size.values():
        while numbers:
            batch = numbers[:batch_size]
            try:
                results.update(zip(batch, run([images[number] for number in batch]), strict=True))
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size //= 2
                torch.cuda.empty_cache()
                logger.warning("out of GPU memory: going on with %d images at a time", batch_size)
                continue
            numbers = numbers[len(batch) :]
    return [results[number] for number in range(len(images))]
