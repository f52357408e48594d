"""Work on samples in a thread of its own, while the next ones are generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from diffugen.generation.record import GeneratedRecord

Result = TypeVar("Result")


@contextmanager
def beside(
    work: Callable[[GeneratedRecord], Result],
) -> Iterator[tuple[Callable[[GeneratedRecord], None], dict[str, Result]]]:
    """Have every sample worked on as soon as its files are there.

    Args:
        work: what to do with a sample; called in one thread, in the order of the samples.

    Yields:
        A function to be told of each sample (`on_done` of `generate_batches`), and the results by record id,
        complete when the block has ended.

    Raises:
        Exception: at the end of the block, what `work` raised.
    """
    results: dict[str, Result] = {}
    jobs: list[Future[None]] = []

    def run(record: GeneratedRecord) -> None:
        results[record.id] = work(record)

    with ThreadPoolExecutor(max_workers=1) as thread:
        yield lambda record: jobs.append(thread.submit(run, record)), results
        for job in jobs:
            job.result()
