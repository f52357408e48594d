"""Shards made by processes of this machine: the same files however many there are, and whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from executor_job import ToyJob, hash_of, shards, squares
from tqdm import tqdm

from diffugen.config.executor import ExecutorConfig
from diffugen.errors import UserError
from diffugen.executor import local_pool, run
from diffugen.executor.base import Event, Progress, Shard, shards_of
from diffugen.executor.run import run_job
from diffugen.progress import rates_go_to


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "num_cores", lambda: 2)


def work(job: ToyJob, num_workers: int = 2, **settings: object) -> list[dict]:
    config = ExecutorConfig(num_workers=num_workers, **settings)
    return list(run_job(job, shards(), job.folder / "records", config, desc="toys", device="cpu"))


def test_shards_hold_whole_batches() -> None:
    batches = [[1, 2], [3, 4], [5, 6, 7, 8, 9], [10], [11]]
    made = shards_of(batches, 4)
    assert [shard.items for shard in made] == [(1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]
    assert [shard.name for shard in made] == ["0000000-0000003", "0000004-0000008", "0000009-0000010"]
    assert shards_of([], 4) == []


def test_files_do_not_depend_on_who_made_them(tmp_path: Path) -> None:
    one, two, killed = (ToyJob(tmp_path / name) for name in ("one", "two", "killed"))
    killed = ToyJob(killed.folder, deaths={5: 1, 13: 2})
    assert work(one, 1) == work(two) == work(killed) == squares(range(24))
    assert hash_of(one.folder / "files") == hash_of(two.folder / "files") == hash_of(killed.folder / "files")
    assert hash_of(one.folder / "records") == hash_of(two.folder / "records") == hash_of(killed.folder / "records")
    assert (killed.folder / "deaths" / "13").read_text() == "xx"
    assert not list(tmp_path.rglob(".*"))


def test_a_shard_that_kills_three_workers_is_set_aside(tmp_path: Path) -> None:
    job = ToyJob(tmp_path, deaths={9: 3})
    with pytest.raises(
        UserError, match=r"1 of 6 shards .*: images toy 8 to toy 11 \(killed by SIGKILL\); .*more memory"
    ):
        work(job)
    assert len(list((tmp_path / "files").iterdir())) == 24 - 3  # item 8 was made, 9 to 11 were not
    assert len(list((tmp_path / "records").iterdir())) == 5
    assert work(job) == squares(range(24))  # it kills no more


def test_an_error_is_tried_again_and_a_mistake_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images toy 0 to toy 3 \(ZeroDivisionError: item 2\); .* the lines above"):
        work(ToyJob(tmp_path / "error", errors=(2,)))
    with pytest.raises(UserError, match="^item 2 cannot be made; choose another$"):
        work(ToyJob(tmp_path / "mistake", mistakes={2: "item 2 cannot be made; choose another"}, seconds=1))
    with pytest.raises(UserError, match="^no such model$"):
        work(ToyJob(tmp_path / "load", load_error="no such model"))


def test_workers_that_die_while_loading_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers end while they load the models .killed by SIGKILL."):
        work(ToyJob(tmp_path, dies_loading=True), 1)


def test_what_is_there_is_kept_and_what_is_lost_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ToyJob(tmp_path)
    work(job)
    pids = {path.name: path.read_text() for path in (tmp_path / "pids").iterdir()}
    job.file(6).unlink()
    (tmp_path / "records" / "0000012-0000015.jsonl").write_text("{")
    assert work(job) == squares(range(24))
    again = {path.name for path in (tmp_path / "pids").iterdir() if path.read_text() != pids[path.name]}
    assert again == {str(number) for number in (4, 5, 6, 7, 12, 13, 14, 15)}
    monkeypatch.setattr(run, "start_pool", None)
    assert work(job) == squares(range(24))  # nothing to do, so nobody is asked
    with pytest.raises(TypeError):
        work(ToyJob(tmp_path, setting="other"))


def test_more_than_there_is_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'executor.num_workers' is 3, but this machine has 2 cores, enough for 2"):
        work(ToyJob(tmp_path), 3)
    with pytest.raises(UserError, match="'executor.gpus_per_worker' asks for GPUs"):
        list(run_job(ToyJob(tmp_path), shards(), tmp_path, ExecutorConfig(gpus_per_worker=1), desc="x", device="cpu"))
    with pytest.raises(UserError, match="the device is 'cuda:1'"):
        list(run_job(ToyJob(tmp_path), shards(), tmp_path, ExecutorConfig(), desc="x", device="cuda:1"))
    monkeypatch.setattr(local_pool, "visible_gpus", lambda: ["3", "5"])
    with pytest.raises(UserError, match="is 5, but this machine has 2 GPUs, enough for 4"):
        config = ExecutorConfig(num_workers=5, gpus_per_worker=0.5)
        list(run_job(ToyJob(tmp_path), shards(), tmp_path, config, desc="x", device="auto"))


def test_workers_share_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(local_pool, "USER_THREADS", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as ultralytics may have set it by then
    monkeypatch.setattr(local_pool, "num_cores", lambda: 5)

    def gpus(share: float) -> list[str]:
        pool = run.start_pool(run.Task(ToyJob(tmp_path), tmp_path), ExecutorConfig(gpus_per_worker=share), "auto", 9)
        assert isinstance(pool, local_pool.LocalPool)
        environments = [pool._environment(slot) for slot in range(pool.size)]
        assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"1"}
        return [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]

    assert gpus(0.5) == ["3", "5", "3", "5"]
    assert gpus(0.6) == gpus(1) == ["3", "5"]  # none has two halves of 1.2
    assert gpus(0.3) == ["3", "5", "3", "5", "3"]  # a core each
    assert gpus(0) == [""] * 5
    with pytest.raises(UserError, match="'executor.gpus_per_worker' is 0, but the device is 'cuda'"):
        run.check_room(ExecutorConfig(gpus_per_worker=0), "cuda")


def test_rates_of_all_workers_are_reported(tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    with rates_go_to(lambda desc, rates: seen.update({f"{desc.strip(': ')} {name}": rates[name] for name in rates})):
        work(ToyJob(tmp_path, seconds=0.2))
    assert set(seen) == {"toys worker 1", "toys worker 2"} and all(rate > 0 for rate in seen.values())


def test_a_record_that_was_changed_is_made_again(tmp_path: Path) -> None:
    job = ToyJob(tmp_path)
    work(job)
    path = tmp_path / "records" / "0000000-0000003.jsonl"
    path.write_text(path.read_text().replace('"square": 9', '"square": 7'))
    assert work(job) == squares(range(24))


class Slots:
    """Workers by script: what each slot reports, a list for each time it is started."""

    def __init__(self, *scripts: list[list[Event]]) -> None:
        self.size, self.scripts, self.events = len(scripts), scripts, list[Event]()

    def start(self, slot: int) -> None:
        self.events += self.scripts[slot].pop(0) if self.scripts[slot] else []

    def submit(self, slot: int, shard: Shard) -> None:
        num = len(shard.items)
        self.events += [Event(slot, "progress", Progress(2, 1)), Event(slot, "done", Progress(num, num - 1))]

    def wait(self, seconds: float) -> list[Event]:
        return [self.events.pop(0)] if self.events else []

    def close(self) -> None:
        pass


def test_a_worker_that_cannot_start_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def scheduled(*scripts: list[list[Event]]) -> run.Schedule:
        return run.Schedule(Slots(*scripts), shards(), tqdm(file=StringIO()))

    dies = [[Event(0, "died", "killed by SIGKILL")]] * 3
    schedule = scheduled(list(dies), [[Event(1, "ready")]])
    schedule.run()
    assert not schedule.aside and not schedule.waiting
    assert schedule.made == {1: 18}  # one of each shard was there already
    assert caplog.text.count("worker 1 cannot load the models (killed by SIGKILL); the others go on") == 1
    with pytest.raises(
        UserError, match="workers end while they load the models .killed by SIGKILL.; give a worker more"
    ):
        scheduled(list(dies)).run()


def test_shards_of_one_title_are_counted_apart() -> None:
    dies = [[Event(0, "ready")]] * 20
    slots = Slots(dies)
    slots.submit = lambda slot, shard: slots.events.append(Event(slot, "died", "exit code 1"))  # type: ignore[method-assign]
    schedule = run.Schedule(slots, shards(8), tqdm(file=StringIO()), lambda item: "memory.png")
    schedule.run()
    assert list(schedule.aside) == ["0000000-0000003", "0000004-0000007"]
    with pytest.raises(UserError, match="2 of 2 .*memory.png .exit code 1., memory.png .* the lines above say more"):
        run._raise_set_aside(schedule, 2, "image")


def test_a_worker_that_hangs_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "STALL_SECONDS", -1.0)
    schedule = run.Schedule(Slots([[Event(0, "ready")]]), shards(4), tqdm(file=StringIO()), "toy {}".format)
    schedule.run()
    assert "worker 1 has finished nothing for" in (told := capsys.readouterr().err) and "(toy 0 to toy 3)" in told


def test_modules_do_not_come_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('somebody else is here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # '' is the working folder
    assert work(ToyJob(tmp_path / "out"), 1) == squares(range(24))


DRIVER = """
import sys
from io import StringIO
from pathlib import Path
from executor_job import ToyJob, shards
from diffugen.command_line import run_command
from diffugen.config.executor import ExecutorConfig
from diffugen.executor.run import run_job
job = ToyJob(Path(sys.argv[1]), seconds=0.1)
work = lambda: len(list(run_job(job, shards(), job.folder / "records", ExecutorConfig(num_workers=1), desc="x", device="cpu"))) * 0
sys.exit(run_command(work))
"""  # noqa: E501


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_driver_that_ends_takes_its_workers_along(tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], env=environment, stderr=subprocess.PIPE)
    while not (tmp_path / "files" / "0005.txt").is_file():
        time.sleep(0.05)
    worker = int((tmp_path / "pids" / "5").read_text())
    driver.send_signal(number)
    driver.communicate(timeout=60)
    assert driver.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    while Path(f"/proc/{worker}").exists():  # an orphan reads the end of its driver
        time.sleep(0.05)
    made = len(list((tmp_path / "files").iterdir()))
    assert made < 24
    assert work(ToyJob(tmp_path)) == squares(range(24))
    undisturbed = ToyJob(tmp_path / "undisturbed")
    work(undisturbed)
    assert hash_of(tmp_path / "files") == hash_of(undisturbed.folder / "files")
