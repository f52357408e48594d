"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from diffugen.command_line import USER_THREADS
from diffugen.config.executor import ExecutorConfig
from diffugen.errors import UserError
from diffugen.executor.base import Event, Shard, Task

STOP_SECONDS = 3.0
"""How long a worker may take to end before it is killed."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection


class LocalPool:
    """Processes of this machine; each has a GPU of its own (or a share of one), or one core.

    On a CPU a worker computes with one thread, unless OMP_NUM_THREADS says otherwise: so bytes do not depend on how
    many workers share the machine.

    Raises:
        UserError: the machine has too few GPUs or cores.
    """

    def __init__(self, task: Task, config: ExecutorConfig, device: str, num_shards: int) -> None:
        self.task = task
        self.gpus, self.share, num_workers = local_room(config, device)
        self.size = min(num_workers, num_shards)
        self.workers: dict[int, _Worker] = {}

    def start(self, slot: int) -> None:
        """Start a worker process; it ends when this process does."""
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                # -P: no module comes from the folder that the command was given in
                [sys.executable, "-P", "-m", "diffugen.executor.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which then stops its workers
            )
        self.workers[slot] = _Worker(process, ours)
        self._send(slot, self.task)

    def _environment(self, slot: int) -> dict[str, str]:
        environment = {**os.environ, **thread_variables()}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        own = self.gpus[slot % len(self.gpus)] if self.share else ""
        return environment | {"CUDA_VISIBLE_DEVICES": own}

    def submit(self, slot: int, shard: Shard) -> None:
        """Send a shard to a worker."""
        self._send(slot, shard)

    def _send(self, slot: int, value: object) -> None:
        with contextlib.suppress(OSError):  # it has died, which `wait` tells
            self.workers[slot].connection.send_bytes(pickle.dumps(value))

    def wait(self, seconds: float) -> list[Event]:
        """What workers sent within some seconds."""
        slots = {id(worker.connection): slot for slot, worker in self.workers.items()}
        connections = [worker.connection for worker in self.workers.values()]
        return [self._receive(slots[id(connection)]) for connection in wait(connections, seconds)]

    def _receive(self, slot: int) -> Event:
        try:
            kind, value = self.workers[slot].connection.recv()
        except (EOFError, OSError):
            worker = self.workers.pop(slot)
            worker.connection.close()
            return Event(slot, "died", _how_it_ended(worker.process.wait()))
        if kind == "died":  # it ends by itself
            self._stop([self.workers.pop(slot)])
        return Event(slot, kind, value)

    def close(self) -> None:
        """Stop all workers."""
        self._stop(list(self.workers.values()))
        self.workers.clear()

    def _stop(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in workers:
            try:
                worker.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def thread_variables() -> dict[str, str]:
    """Environment of a worker: one thread on a CPU, unless the user has said otherwise."""
    return {"OMP_NUM_THREADS": USER_THREADS or "1", "MKL_NUM_THREADS": os.environ.get("MKL_NUM_THREADS", "1")}


def workers_per_gpu(share: float) -> int:
    """How many workers that take a share each have room on one GPU: none is on two."""
    return int(1 / share + 1e-9)


def check_share(share: float, device: str) -> None:
    """Raise a UserError where workers are to have no GPU, but models are to be on one."""
    if not share and device.startswith("cuda"):
        raise UserError(
            f"setting 'executor.gpus_per_worker' is 0, but the device is {device!r}; raise it, or give the device "
            "'auto' or 'cpu'"
        )


def local_room(config: ExecutorConfig, device: str) -> tuple[list[str], float, int]:
    """The GPUs that workers get here, the share of one that each gets, and how many workers there are.

    Raises:
        UserError: the machine has too few GPUs or cores.
    """
    gpus = visible_gpus() if device != "cpu" else []
    share = config.gpus_per_worker if config.gpus_per_worker is not None else float(bool(gpus))
    check_share(share, device)
    if share and not gpus:
        raise UserError("setting 'executor.gpus_per_worker' asks for GPUs, but there are none here; set it to 0")
    most = len(gpus) * workers_per_gpu(share) if share else num_cores()
    if config.num_workers is not None and config.num_workers > most:
        what = f"{len(gpus)} GPUs" if share else f"{most} cores"
        raise UserError(
            f"setting 'executor.num_workers' is {config.num_workers}, but this machine has {what}, enough for "
            f"{most}; lower it"
        )
    return gpus if share else [], share, config.num_workers or min(most, max(num_cores(), len(gpus)))


def _how_it_ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
