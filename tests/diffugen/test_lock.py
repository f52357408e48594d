"""One process at a time in a folder: with flock and without, after kills, copies, and on other machines."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffugen import lock
from diffugen.errors import UserError
from diffugen.lock import locked, locked_beside

HOLD = """
import fcntl, sys
from pathlib import Path
from diffugen import lock
lock.BEAT_SECONDS = 0.05
if sys.argv[2] == "without flock":
    def flock(*arguments): raise OSError(37, "No locks available")
    fcntl.flock = flock
with lock.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""

KINDS = ("with flock", "without flock")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 1.0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with flock, or without."""
    if request.param == "without flock":
        no_flock(monkeypatch)
    return request.param


def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@contextmanager
def holder(folder: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A process that works in a folder; it is killed at the end."""
    command = [sys.executable, "-c", HOLD, str(folder), kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_until_the_first_is_killed(kind: str, tmp_path: Path) -> None:
    with holder(tmp_path / "run", kind) as first, pytest.raises(UserError) as refused, locked(tmp_path / "run"):
        pytest.fail("two processes have the lock")
    assert f"is in use by process {first.pid} on " in str(refused.value)
    assert json.loads((tmp_path / "run" / ".lock").read_text())["pid"] == first.pid
    with locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / ".lock").read_bytes() == b""


def test_the_same_process_is_refused_as_well(kind: str, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} "), locked(tmp_path):
        pytest.fail("locked twice")


def test_a_run_copied_elsewhere_with_its_lock_goes_on_beside_the_original(kind: str, tmp_path: Path) -> None:
    with holder(tmp_path / "run", kind):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with locked(tmp_path / "copy"):
            pass


@pytest.mark.parametrize("content", ["4711", "", "{", '{"pid": 1}', "\0" * 9, "[]"])
def test_whatever_else_a_lock_file_says_blames_nobody(content: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path):
        pass


def from_elsewhere(folder: Path) -> dict[str, Any]:
    """What the lock file of a process on another machine says."""
    with locked(folder):
        record = json.loads((folder / ".lock").read_text())
    return record | {"host": "elsewhere", "pid": 1, "processes": "another start", "token": "theirs"}


def test_an_owner_on_another_machine_is_known_by_its_beat(kind: str, tmp_path: Path) -> None:
    record = from_elsewhere(tmp_path)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.02):
            record["beat"] += 1
            with (tmp_path / ".lock").open("r+") as file:  # never empty, as a real one
                file.write(json.dumps(record))

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        time.sleep(0.1)
        with pytest.raises(UserError, match="in use by process 1 on elsewhere"), locked(tmp_path):
            pytest.fail("two machines have the lock")
    finally:
        stop.set()
        beating.join()
    with locked(tmp_path):  # it beats no more
        pass


def test_no_clock_is_asked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").write_text(json.dumps(from_elsewhere(tmp_path)))
    os.utime(tmp_path / ".lock", (4e9, 4e9))  # the future
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with locked(tmp_path):
        pass


def test_of_two_that_start_at_once_one_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_flock(monkeypatch)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lock, "_check_gone", lambda *arguments: None)  # both found the folder free
    outcomes = []

    def work() -> None:
        try:
            with locked(tmp_path):
                outcomes.append("works")
                time.sleep(1)
        except UserError:
            outcomes.append("refused")

    both = [threading.Thread(target=work) for _ in range(2)]
    for thread in both:
        thread.start()
        time.sleep(0.05)
    for thread in both:
        thread.join()
    assert sorted(outcomes) == ["refused", "works"]


def test_a_process_that_was_taken_for_dead_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such as a machine that slept while another took over."""
    stopped = threading.Event()
    monkeypatch.setattr(os, "kill", lambda pid, number: stopped.set())
    record = from_elsewhere(tmp_path)
    with locked(tmp_path):
        (tmp_path / ".lock").write_text(json.dumps(record))
        assert stopped.wait(10)
    assert json.loads((tmp_path / ".lock").read_text())["host"] == "elsewhere"


def test_what_is_written_beside_its_place_is_locked_there(kind: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    with locked_beside(found):
        lock_file = tmp_path / ".found.lock"
        assert json.loads(lock_file.read_text())["pid"] == os.getpid()
        with locked_beside(found), locked_beside(found / "images"):  # its own
            pass
        inode = lock_file.stat().st_ino
    assert not list(tmp_path.iterdir())
    lock_file.touch()
    with locked_beside(found):  # of a process that was killed
        assert inode
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_just_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that wait for a third, one may open the file that the third removes."""
    take = lock._flock

    def late(*arguments: Any) -> bool:
        (tmp_path / ".found.lock").unlink()
        return take(*arguments)

    monkeypatch.setattr(lock, "_flock", late)
    with pytest.raises(UserError, match="is in use"), locked_beside(tmp_path / "found"):
        pytest.fail("locked by nothing")


def test_a_lock_that_another_process_has_taken_over_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock._Heart, "_run", lambda heart: None)
    lock_file = tmp_path / ".found.lock"
    with locked_beside(tmp_path / "found"):
        other = json.loads(lock_file.read_text()) | {"host": "elsewhere", "token": "another"}
        lock_file.write_text(json.dumps(other))
    assert json.loads(lock_file.read_text())["host"] == "elsewhere"


def test_a_folder_is_one_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with locked_beside(tmp_path / "real" / "found"), locked_beside(tmp_path / "link" / "found"):
        assert [path.name for path in (tmp_path / "real").iterdir()] == [".found.lock"]


def test_a_lock_in_a_folder_beside_it_or_above_it_keeps_all_others_out(kind: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with holder(run, kind):
        for other in (locked_beside(run), locked_beside(run / "found"), locked(run / "deeper" / "run")):
            with pytest.raises(UserError, match=r"folder .*run is in use by process"), other:
                pass
        assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "run"], "the refused leave nothing"
    with locked_beside(run / "found"), locked_beside(run), locked(run):
        pass
    assert not list(tmp_path.glob(".*")), "what it locked twice is free again"


@pytest.mark.parametrize("content", ["mine", "{}\n", '{"host": "db.example.com", "port": 5432}'])
def test_a_file_with_the_name_of_a_lock_stays_as_it_is(content: str, tmp_path: Path) -> None:
    (tmp_path / ".data.lock").write_text(content)
    (tmp_path / "precious.txt").write_text(content)
    (tmp_path / ".linked.lock").symlink_to(tmp_path / "precious.txt")
    (tmp_path / ".folder.lock").mkdir()
    os.mkfifo(tmp_path / ".pipe.lock")
    for name in ("data", "linked", "folder", "pipe"):
        with (
            pytest.raises(UserError, match="is not what diffugen locks an output with"),
            locked_beside(tmp_path / name),
        ):
            pass
    assert (tmp_path / ".data.lock").read_text() == (tmp_path / "precious.txt").read_text() == content
    with locked_beside(tmp_path / "data" / "other"):
        pass
