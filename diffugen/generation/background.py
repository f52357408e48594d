"""Work on samples in a background thread, while the next ones are generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from diffugen.sample import Sample

Result = TypeVar("Result")


@contextmanager
def in_background(
    work: Callable[[Sample], Result],
) -> Iterator[tuple[Callable[[Sample], None], dict[str, Result]]]:
    """Work on every sample as soon as its files are there.

    Args:
        work: called in one background thread, in the order in which samples are submitted.

    Yields:
        A function that submits a sample (`on_done` of `generate_batches`), and the results by sample name, which are
        complete when the block has ended.

    Raises:
        Exception: at the end of the block, what `work` raised.
    """
    results: dict[str, Result] = {}
    jobs: list[Future[None]] = []

    def run(sample: Sample) -> None:
        results[sample.name] = work(sample)

    with ThreadPoolExecutor(max_workers=1) as thread:
        yield lambda sample: jobs.append(thread.submit(run, sample)), results
        for job in jobs:
            job.result()
