"""Workers that are actors of a Ray cluster, wherever Ray puts them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffugen.config.executor import ExecutorConfig
from diffugen.errors import UserError
from diffugen.executor.base import Event, Progress, Shard, Task
from diffugen.executor.local_pool import check_share, num_cores, thread_variables, visible_gpus, workers_per_gpu
from diffugen.executor.records import make_shard
from diffugen.executor.worker import refusal
from diffugen.files import name_temporaries

POLL_SECONDS = 1.0
CONNECT_SECONDS, ANSWER_SECONDS = 20.0, 60.0
"""How long a cluster may take to accept a connection, and to answer; importing Ray counts."""


class RayWorker:
    """The actor. Its methods return what happened instead of raising, and `progress` answers while `make` works."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.done = Progress()
        name_temporaries()

    def load(self) -> tuple[str, Any]:
        """Load the models."""
        if not self.task.folder.is_dir():
            return "refused", (
                f"the node {socket.gethostname()} does not see {self.task.folder}; give an output folder that all "
                "nodes share under one path"
            )
        return self._told("ready", self._load)

    def _load(self) -> None:
        self.work = self.task.job.load()

    def make(self, shard: Shard) -> tuple[str, Any]:
        """Make a shard."""
        self.done = Progress()
        kind, value = self._told("done", lambda: make_shard(self.task, self.work, shard, self._advance))
        return kind, self.done if kind == "done" else value

    def _advance(self, num: int, *, made: bool = True) -> None:
        self.done = self.done.after(num, made=made)

    def progress(self) -> Progress:
        """How far the shard in work is."""
        return self.done

    def _told(self, kind: str, action: Any) -> tuple[str, Any]:
        try:
            action()
        except BaseException as error:
            if message := refusal(error):
                return "refused", message
            traceback.print_exc()
            return "died", f"{type(error).__name__}: {error}"
        return kind, None


class RayPool:
    """Actors with one CPU each, and a GPU or a share of one where the cluster has GPUs.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or it is too small.
    """

    def __init__(self, task: Task, config: ExecutorConfig, device: str, num_shards: int) -> None:
        self.task = task
        self.ray, self.is_ours = _connected(config.address)
        try:
            share, most = _room(self.ray.cluster_resources(), config, device)
        except UserError:
            self._leave()
            raise
        self.size = min(config.num_workers or most, num_shards)
        threads = {"env_vars": thread_variables()}
        self.actor_class = self.ray.remote(
            num_cpus=1, num_gpus=share, max_concurrency=2, max_restarts=0, runtime_env=threads
        )(RayWorker)
        self.actors: dict[int, Any] = {}
        self.calls: dict[Any, int] = {}
        """Slots by the reference of what they work on."""
        self.asked: dict[Any, int] = {}
        """Slots by the reference of how far they are."""
        self.next_poll = 0.0

    def start(self, slot: int) -> None:
        """Ask for an actor; it waits where the cluster is busy."""
        self.actors[slot] = self.actor_class.remote(self.task)
        self.calls[self.actors[slot].load.remote()] = slot

    def submit(self, slot: int, shard: Shard) -> None:
        """Call an actor."""
        self.calls[self.actors[slot].make.remote(shard)] = slot

    def wait(self, seconds: float) -> list[Event]:
        """What actors answered within some seconds."""
        self._poll()
        waiting = [*self.calls, *self.asked]
        if not waiting:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=seconds)
        events = [self._answer(reference) for reference in ready]
        return [event for event in events if event is not None]

    def _poll(self) -> None:
        if time.monotonic() < self.next_poll:
            return
        self.next_poll = time.monotonic() + POLL_SECONDS
        for slot in set(self.calls.values()) - set(self.asked.values()):
            self.asked[self.actors[slot].progress.remote()] = slot

    def _answer(self, reference: Any) -> Event | None:
        is_progress = reference in self.asked
        slot = (self.asked if is_progress else self.calls).pop(reference, None)
        if slot is None:
            return None
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            if is_progress:  # what it works on tells
                return None
            self._forget(slot)
            answer = "died", f"{type(error).__name__}: {_first_line(error)}"
        if is_progress:
            return Event(slot, "progress", answer)
        self._ask_no_more(slot)  # an answer that is late would count for the next shard
        kind, value = answer
        if kind == "died" and slot in self.actors:  # its models may be broken by now
            self._forget(slot)
        return Event(slot, kind, value)

    def _forget(self, slot: int) -> None:
        """End an actor, and wait for nothing of it."""
        self._kill(slot)
        del self.actors[slot]
        for references in (self.calls, self.asked):
            for reference in [reference for reference, owner in references.items() if owner == slot]:
                del references[reference]

    def _ask_no_more(self, slot: int) -> None:
        for reference in [reference for reference, owner in self.asked.items() if owner == slot]:
            del self.asked[reference]

    def _kill(self, slot: int) -> None:
        with contextlib.suppress(Exception):  # it may be gone
            self.ray.kill(self.actors[slot], no_restart=True)

    def close(self) -> None:
        """Stop all actors and leave the cluster."""
        for slot in self.actors:
            self._kill(slot)
        self._leave()

    def _leave(self) -> None:
        if self.is_ours:
            self.ray.shutdown()


def check_cluster(config: ExecutorConfig, device: str) -> None:
    """Check that the cluster answers and has room for the workers, and leave it.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or it is too small.
    """
    if config.address is None:  # one is started on this machine, in time
        _imported()
        _room({"CPU": num_cores(), "GPU": len(visible_gpus())}, config, device)
        return
    ray, is_ours = _connected(config.address)
    try:
        _room(ray.cluster_resources(), config, device)
    finally:
        if is_ours:
            ray.shutdown()


def _room(total: Mapping[str, float], config: ExecutorConfig, device: str) -> tuple[float, int]:
    """The share of a GPU that each worker takes, and for how many workers a cluster has room.

    Raises:
        UserError: for fewer than are asked for.
    """
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0) if device != "cpu" else 0.0
    share = config.gpus_per_worker if config.gpus_per_worker is not None else float(gpus > 0)
    check_share(share, device)
    most = min(int(cpus), int(gpus) * workers_per_gpu(share) if share else int(cpus))
    if (config.num_workers or 1) > most:
        wanted = f"{config.num_workers or 1} worker(s) of 1 CPU and {share:g} GPU"
        raise UserError(
            f"setting 'executor.num_workers': the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs, too few for "
            f"{wanted} each; lower executor.num_workers or executor.gpus_per_worker, or add nodes"
        )
    return share, most


def _connected(address: str | None) -> tuple[Any, bool]:
    """The module `ray`, connected to a cluster, and whether it was not before.

    Raises:
        UserError: it is not installed, or there is no such cluster.
    """
    ray = _imported()
    if ray.is_initialized():
        return ray, False
    try:
        _check_answers(address)
        options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "error"}
        if address is None:
            options["include_dashboard"] = False
        with _own_signals():
            ray.init(**options)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"setting 'executor.address': no Ray cluster answers at {address or 'this machine'} "
            f"({_first_line(error)}); start one by `ray start --head`, or give another address"
        ) from None
    return ray, True


def _imported() -> Any:
    """The module `ray`.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # of a cluster that is started here; by default other work goes first
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(
            "setting 'executor.kind' is 'ray', which is not installed; pip install 'diffugen[ray]'"
        ) from None
    return ray


def _check_answers(address: str | None) -> None:
    """Raise OSError where no cluster is at HOST:PORT: Ray would try again for minutes, and not heed Ctrl-C."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    if address is not None and not address.startswith("ray://"):
        command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check", "--address", address]
        try:
            answer = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise OSError("what listens there does not answer as Ray does") from None
        if b"AuthenticationError" in answer.stderr:
            raise OSError("it asks for its token: set RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray puts a handler of its own in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().split("\n")
    return lines[0][:200] or type(error).__name__
