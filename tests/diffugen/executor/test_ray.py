"""Shards made on a real Ray cluster of several nodes, which all run on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_job import ToyJob, hash_of, shards, squares
from filelock import FileLock

from diffugen.config.executor import ExecutorConfig
from diffugen.errors import UserError
from diffugen.executor import local_pool, ray_pool
from diffugen.executor.run import check_room, run_job

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
ROOT = Path(__file__).parents[3]
OPTIONS = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes with a CPU each; workers find what this process imports.

    Where tests run in several processes, one of these has a cluster at a time.
    """
    with FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"):
        yield from started()


def started() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    before, handler = os.environ.get("PYTHONPATH"), signal.getsignal(signal.SIGTERM)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    made = Cluster(initialize_head=True, head_node_args=OPTIONS)
    try:
        add_node(made)
        yield made
    finally:
        made.shutdown()
        signal.signal(signal.SIGTERM, handler)  # Ray's is in its place
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def add_node(cluster: Any) -> Any:
    """Ray gives a node 30 s to start, which a busy machine may not manage at once."""
    for _ in range(4):
        try:
            return cluster.add_node(**OPTIONS)
        except Exception as error:
            if "timed out" not in str(error):
                raise
    raise AssertionError("no node starts within 2 minutes")


def work(cluster: Any, job: ToyJob, num_workers: int | None = None) -> list[dict]:
    config = ExecutorConfig(kind="ray", address=cluster.address, num_workers=num_workers)
    return list(run_job(job, shards(), job.folder / "records", config, desc="toys", device="cpu"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the files that the local executor makes."""
    job = ToyJob(tmp_path_factory.mktemp("undisturbed"))
    config = ExecutorConfig(num_workers=1)
    assert list(run_job(job, shards(), job.folder / "records", config, desc="toys", device="cpu")) == squares(range(24))
    return hash_of(job.folder / "files")


def test_workers_that_are_killed_leave_no_trace(cluster: Any, tmp_path: Path, undisturbed: str) -> None:
    job = ToyJob(tmp_path, deaths={5: 1, 13: 2})
    assert work(cluster, job) == squares(range(24))
    assert hash_of(tmp_path / "files") == undisturbed
    assert not list(tmp_path.rglob(".*"))


def test_a_shard_that_kills_three_workers_is_set_aside(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 6 shards .*: images toy 8 to toy 11 \(Actor\w*Error"):
        work(cluster, ToyJob(tmp_path, deaths={9: 3}))
    assert len(list((tmp_path / "records").iterdir())) == 5


def test_mistakes_are_sentences(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^no such model$"):
        work(cluster, ToyJob(tmp_path / "load", load_error="no such model"))
    with pytest.raises(UserError, match=r"has \d CPUs and 0 GPUs, too few for 99 worker\(s\) of 1 CPU and 0 GPU each"):
        work(cluster, ToyJob(tmp_path / "many"), 99)
    with pytest.raises(UserError, match="'executor.address': no Ray cluster answers at 127.0.0.1:1 "):
        config = ExecutorConfig(kind="ray", address="127.0.0.1:1")
        list(run_job(ToyJob(tmp_path), shards(), tmp_path, config, desc="x", device="cpu"))


def test_actors_compute_with_one_thread_or_as_many_as_the_user_says(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the cluster was started with."""
    for given, threads in (("3", "3"), (None, "1")):
        monkeypatch.setattr(local_pool, "USER_THREADS", given)
        work(cluster, ToyJob(tmp_path / threads))
        assert {path.read_text() for path in (tmp_path / threads / "threads").iterdir()} == {threads}


def test_a_port_where_nobody_speaks_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "ANSWER_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = ExecutorConfig(kind="ray", address=f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match="what listens there does not answer as Ray does"):
            check_room(config, "cpu")


def test_a_cluster_is_asked_before_work_begins(cluster: Any) -> None:
    check_room(ExecutorConfig(kind="ray", address=cluster.address, num_workers=2), "cpu")
    with pytest.raises(UserError, match="too few for 99 worker"):
        check_room(ExecutorConfig(kind="ray", address=cluster.address, num_workers=99), "cpu")


DRIVER = """
import sys
from pathlib import Path
from executor_job import ToyJob, shards
from diffugen.command_line import run_command
from diffugen.config.executor import ExecutorConfig
from diffugen.executor.run import run_job
job, config = ToyJob(Path(sys.argv[1]), seconds=0.3), ExecutorConfig(kind="ray", address=sys.argv[2], num_workers=2)
work = lambda: len(list(run_job(job, shards(), job.folder / "records", config, desc="x", device="cpu"))) * 0
sys.exit(run_command(work))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_driver_that_ends_is_started_again(
    cluster: Any, tmp_path: Path, undisturbed: str, number: signal.Signals
) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), cluster.address])
    wait_for(lambda: (tmp_path / "files" / "0001.txt").is_file(), driver)
    worker = Path("/proc") / (tmp_path / "pids" / "1").read_text()
    driver.send_signal(number)
    assert driver.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    wait_for(lambda: not worker.exists())
    assert len(list((tmp_path / "files").iterdir())) < 24
    assert work(cluster, ToyJob(tmp_path)) == squares(range(24))
    assert hash_of(tmp_path / "files") == undisturbed


def test_a_node_that_is_lost(cluster: Any, tmp_path: Path, undisturbed: str, caplog: pytest.LogCaptureFixture) -> None:
    """One of three nodes is killed once its worker has begun a shard."""
    node = add_node(cluster)
    raylet = node.all_processes["raylet"][0].process.pid

    def lose() -> None:
        wait_for(lambda: raylet in {parent_of(int(path.read_text())) for path in (tmp_path / "pids").glob("[0-9]*")})
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    assert work(cluster, ToyJob(tmp_path, seconds=0.3)) == squares(range(24))
    assert not thread.is_alive() and caplog.text.count("is made again") == 1
    assert hash_of(tmp_path / "files") == undisturbed
    assert not list(tmp_path.rglob(".*"))


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    while not condition():
        assert process is None or process.poll() is None, "the driver ended by itself"
        time.sleep(0.05)
