"""Running a job: shards are handed to workers, and workers that die are replaced."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffugen.config.executor import ExecutorConfig
from diffugen.errors import UserError
from diffugen.executor.base import Event, Job, Pool, Progress, Record, Shard, Task
from diffugen.executor.records import read_records
from diffugen.files import remove_temporaries
from diffugen.progress import progress_bar, report_rates, say

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""After as many deaths of its worker a shard is set aside; after as many while it loads models a worker is given up."""

WAIT_SECONDS = 0.5
PATIENCE_SECONDS, STALL_SECONDS = 60.0, 600.0
"""After so long without a worker, or without a worker's progress, it is said what is waited for."""


def run_job(
    job: Job,
    shards: Sequence[Shard],
    folder: Path,
    config: ExecutorConfig,
    *,
    desc: str,
    device: str,
    unit: str = "image",
    on_done: Callable[[Shard], None] = lambda shard: None,
) -> Iterator[Record]:
    """Have workers make all shards that are not made yet; yields the records of all items, in their order.

    Args:
        job: the work.
        shards: all of it.
        folder: gets a file of records per shard; `discard_records` removes it.
        config: who works.
        desc: of the progress bar.
        device: as `model.device`: where the models run.
        unit: what an item is.
        on_done: called for every shard that is finished now, in this process.

    Raises:
        UserError: workers cannot be had, a worker reports a mistake of the user's, or shards were set aside, which is
            raised after all others are made.
    """
    task = Task(job, folder.resolve())
    missing = [shard for shard in shards if read_records(task, shard) is None]
    if missing:
        total = sum(len(shard.items) for shard in shards)
        pool = start_pool(task, config, device, len(missing))
        task.folder.mkdir(parents=True, exist_ok=True)
        with progress_bar(total=total, initial=total - _num_items(missing), unit=unit, desc=desc) as bar:
            schedule = Schedule(pool, missing, bar, job.title, on_done)
            try:
                schedule.run()
            finally:
                pool.close()
        for written in (task.folder, *job.folders()):
            remove_temporaries(written)
        if schedule.aside:
            _raise_set_aside(schedule, len(shards), unit)
    for shard in shards:
        records = read_records(task, shard)
        if records is None:
            raise UserError(f"{task.folder} lost the records of shard {shard.name}; the same command makes them again")
        yield from records


def discard_records(folder: Path) -> None:
    """Remove the records of a job whose results were written elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


def start_pool(task: Task, config: ExecutorConfig, device: str, num_shards: int) -> Pool:
    """The workers that a config asks for, not more than there are shards; none of them is started yet.

    Raises:
        UserError: there is not enough for them.
    """
    _check_device(device)
    if config.kind == "ray":
        from diffugen.executor.ray_pool import RayPool

        return RayPool(task, config, device, num_shards)
    from diffugen.executor.local_pool import LocalPool

    return LocalPool(task, config, device, num_shards)


def check_room(config: ExecutorConfig, device: str) -> None:
    """Check before any work that the workers of a config can be had; a Ray cluster is asked, and left again.

    Raises:
        UserError: see `start_pool`.
    """
    _check_device(device)
    if config.kind == "ray":
        from diffugen.executor.ray_pool import check_cluster

        check_cluster(config, device)
    else:
        from diffugen.executor.local_pool import local_room

        local_room(config, device)


def _check_device(device: str) -> None:
    if device.startswith("cuda:"):
        raise UserError(
            f"the device is {device!r}, but the executor gives each worker a GPU of its own; name none, or give "
            '"auto" or "cuda"'
        )


class Schedule:
    """Which worker has which shard.

    Args:
        pool: its workers.
        shards: to be made.
        bar: shows the items that are finished.
        title: what messages call an item.
        on_done: called for every shard that is finished.
    """

    def __init__(
        self,
        pool: Pool,
        shards: Sequence[Shard],
        bar: Any,
        title: Callable[[Any], str] = str,
        on_done: Callable[[Shard], None] = lambda shard: None,
    ) -> None:
        self.pool, self.bar, self.title, self.on_done = pool, bar, title, on_done
        self.waiting = deque(shards)
        self.alive: set[int] = set()
        self.idle: list[int] = []
        self.busy: dict[int, Shard] = {}
        self.made: Counter[int] = Counter()
        """Items that a slot has made, those of the shard in work included."""
        self.of_shard: dict[int, Progress] = {}
        """How far the shard in work is, by slot."""
        self.moved: dict[int, float] = {}
        """When that changed."""
        self.patience: dict[int, float] = {}
        """Seconds without a change after which it is told; twice as long each time."""
        self.deaths: Counter[str] = Counter()
        self.deaths_while_loading: Counter[int] = Counter()
        self.given_up: set[int] = set()
        """Slots whose workers do not start."""
        self.aside: dict[str, str] = {}
        self.causes: set[str] = set()
        """How workers ended over shards that were set aside."""
        self.ready_since: dict[int, float] = {}
        self.last_life = time.monotonic()

    def run(self) -> None:
        """Work until all is made, but for the shards that were set aside."""
        while self.waiting or self.busy:
            wanted = min(self.pool.size, len(self.waiting) + len(self.busy))
            startable = [slot for slot in range(self.pool.size) if slot not in self.alive | self.given_up]
            for slot in startable[: max(0, wanted - len(self.alive))]:
                self.alive.add(slot)
                self.pool.start(slot)
            while self.waiting and self.idle:
                self._submit(self.idle.pop(0))
            for event in self.pool.wait(WAIT_SECONDS):
                self._handle(event)
            self._show()

    def _submit(self, slot: int) -> None:
        self.busy[slot] = self.waiting.popleft()
        self._move(slot, Progress())
        self.pool.submit(slot, self.busy[slot])

    def _handle(self, event: Event) -> None:
        slot = event.slot
        if event.kind == "refused":
            raise UserError(event.value)
        if event.kind == "died":
            self._bury(slot, event.value)
        elif event.kind == "ready":
            self.deaths_while_loading[slot] = 0
            self.ready_since.setdefault(slot, time.monotonic())
            self.idle.append(slot)
        elif slot in self.busy:
            self._advance(slot, event.value)
            if event.kind == "done":
                self.on_done(self.busy.pop(slot))
                self.idle.append(slot)

    def _advance(self, slot: int, progress: Progress) -> None:
        """A worker's shard is so far."""
        before = self.of_shard[slot]
        if progress != before:
            self._move(slot, progress)
            self.made[slot] += progress.made - before.made
            self.bar.update(progress.finished - before.finished)

    def _move(self, slot: int, progress: Progress) -> None:
        self.of_shard[slot], self.moved[slot], self.patience[slot] = progress, time.monotonic(), STALL_SECONDS

    def _bury(self, slot: int, how: str) -> None:
        self.alive.discard(slot)
        self.idle = [other for other in self.idle if other != slot]
        shard = self.busy.pop(slot, None)
        if shard is None:
            self._bury_young(slot, how)
            return
        self._advance(slot, Progress())
        self.deaths[shard.name] += 1
        if self.deaths[shard.name] < MAX_DEATHS:
            logger.warning("worker %d ended (%s); shard %s is made again", slot + 1, how, shard.name)
            self.waiting.append(shard)
        else:
            logger.warning("worker %d ended (%s); shard %s is set aside", slot + 1, how, shard.name)
            self.aside[shard.name] = f"{named(shard, self.title)} ({how})"
            self.causes.add(how)

    def _bury_young(self, slot: int, how: str) -> None:
        """A worker ended while it loaded the models."""
        self.deaths_while_loading[slot] += 1
        if self.deaths_while_loading[slot] < MAX_DEATHS:
            return
        self.given_up.add(slot)
        if len(self.given_up) == self.pool.size:
            raise UserError(f"workers end while they load the models ({how}); {_advice(how)}")
        logger.warning("worker %d cannot load the models (%s); the others go on", slot + 1, how)

    def _show(self) -> None:
        now = time.monotonic()
        rates = {slot: self.made[slot] / (now - since) for slot, since in self.ready_since.items() if now - since > 1}
        self.bar.set_postfix_str(_described(rates), refresh=False)
        report_rates(str(self.bar.desc or ""), {f"worker {slot + 1}": rate for slot, rate in rates.items()})
        if self.busy or self.idle:
            self.last_life = now
        elif now - self.last_life > PATIENCE_SECONDS:
            self.last_life = now
            say("waiting for workers to start; no worker is at work")
        for slot, shard in self.busy.items():
            if now - self.moved[slot] > self.patience[slot]:
                self.patience[slot] *= 2
                say(
                    f"worker {slot + 1} has finished nothing for {(now - self.moved[slot]) / 60:.0f} minutes "
                    f"({named(shard, self.title)}); if it hangs, stop this command and give it again"
                )


def _num_items(shards: Sequence[Shard]) -> int:
    return sum(len(shard.items) for shard in shards)


def _described(rates: dict[int, float]) -> str:
    """The images per second of each worker, or of many the least and greatest."""
    if len(rates) <= 4:
        return ", ".join(f"worker {slot + 1}: {rate:.2g}/s" for slot, rate in sorted(rates.items()))
    return f"{len(rates)} workers, each {min(rates.values()):.2g} to {max(rates.values()):.2g}/s"


def named(shard: Shard, title: Callable[[Any], str]) -> str:
    """What messages call a shard: by its first and last item."""
    first, last = title(shard.items[0]), title(shard.items[-1])
    return first if first == last else f"{first} to {last}"


def _advice(how: str) -> str:
    if any(word in how for word in ("SIGKILL", "Died", "emory")):
        return "give a worker more memory, or lower executor.num_workers"
    return "the lines above say more"


def _raise_set_aside(schedule: Schedule, num_shards: int, unit: str) -> None:
    aside = schedule.aside
    names = ", ".join(aside[name] for name in sorted(aside)[:5])
    more = f" and {len(aside) - 5} more" if len(aside) > 5 else ""
    raise UserError(
        f"{len(aside)} of {num_shards} shards ended their workers {MAX_DEATHS} times and were set aside: {unit}s "
        f"{names}{more}; all others are made; {_advice(' '.join(schedule.causes))}; the same command makes the rest"
    )
