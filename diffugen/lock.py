"""One process at a time in a folder, on any file system.

The lock file says who works there: host, process, and a beat that goes up every few seconds. `flock` decides where the
file system has it. Where it has none, or the last owner was on another machine, the beat does: a process of this
machine is looked up by its number and start; of another one the beat is watched for a while, by this process's own
clock. No two clocks are ever compared, and a copy of a lock file, which never beats, holds nobody up for long.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from diffugen.errors import UserError
from diffugen.files import hidden_name
from diffugen.progress import say

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"

BEAT_SECONDS = 3.0
PATIENCE_SECONDS = 30.0
"""An owner whose beat stands still for so long is gone."""


@dataclass(frozen=True)
class Owner:
    """Who works in a folder.

    Attributes:
        host: its machine, for messages.
        pid: its process.
        processes: which table of processes the number belongs to: of a start of a machine, of a container.
        started: when the process started, in the machine's own ticks, as numbers are used again.
        inode: of the lock file; a copy has another.
        token: unlike that of any other lock.
    """

    host: str
    pid: int
    processes: str
    started: str
    inode: int
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of an output folder, which is made, for the length of the block.

    Raises:
        UserError: another process is at work there.
    """
    folder = Path(folder)
    _check_free(_real(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with _locked_by(folder / LOCK_FILE, folder):
        _check_free(_real(folder))
        yield


@contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """Keep every other process from writing a file or folder, by a lock beside it that is removed at the end.

    What this process has locked already, itself or as a folder above it, is not locked again.

    Raises:
        UserError: another process is at work there.
    """
    path = _real(path)
    if any(path.is_relative_to(held) for held, _ in _held):
        yield
        return
    _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked_by(hidden_name(path, LOCK_FILE), path, removed=True):
        _check_free(path)
        yield


_held: list[tuple[Path, str]] = []
"""What this process has locked, and its lock files."""


def _check_free(path: Path) -> None:
    """Check that no other process has locked an output by its other kind of lock, or a folder above it.

    Before its own lock is taken, so that a refused command leaves nothing; and after, so that of two that begin at once
    at least one sees the other. A process that has locked a folder does not see what begins above it.
    """
    for folder in (path, *path.parents):
        for lock in (folder / LOCK_FILE, hidden_name(folder, LOCK_FILE)) if folder.name else ():
            if not lock.is_symlink() and lock.is_file() and os.path.realpath(lock) not in [held for _, held in _held]:
                _check_not_held(lock, folder)


def _check_not_held(lock: Path, folder: Path) -> None:
    """Check that nobody holds a lock file, without waiting: an owner on another machine is seen where flock sees it."""
    owner = _read(lock)[0]
    if owner is None:  # nobody's, or what another program calls a lock
        return
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # removed since, or not ours to read
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN) or _is_at_work_here(owner, os.fstat(descriptor).st_ino):
            raise _in_use(folder, owner) from None
    finally:
        os.close(descriptor)


def _is_at_work_here(owner: Owner, inode: int) -> bool:
    here = _processes()
    known = bool(here) and owner.processes == here
    return known and owner.inode == inode and _start_of(owner.pid) == owner.started


@contextmanager
def _locked_by(path: Path, folder: Path, *, removed: bool = False) -> Iterator[None]:
    """Hold a lock file.

    Args:
        path: of the file.
        folder: what it locks, for messages.
        removed: at the end, unless another process has taken it over.
    """
    descriptor = _opened(path, is_among_others=removed)
    try:
        has_flock = _flock(descriptor, folder, path)
        if not _is_at(path, descriptor):  # its last owner has just removed it
            raise _in_use(folder, None)
        _check_gone(folder, path, os.fstat(descriptor).st_ino, has_flock)
        heart = _Heart(descriptor, path)
        heart.beat()
        if not has_flock:  # another process may have found the folder free at the same moment
            time.sleep(2.2 * BEAT_SECONDS)
            if not (heart.is_owner() and _is_at(path, descriptor)):
                raise _in_use(folder, _read(path)[0])
        heart.start()
        held = _real(folder), os.path.realpath(path)
        _held.append(held)
        try:
            yield
        finally:
            _held.remove(held)
            heart.stop()
            if removed and heart.is_owner() and _is_at(path, descriptor):
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _opened(path: Path, *, is_among_others: bool) -> int:
    """A lock file's descriptor, made where it is missing.

    Args:
        path: of the file.
        is_among_others: it lies beside the output, where a file of this name may be somebody's own.

    Raises:
        UserError: of this name there is something else, which stays as it is.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_lock(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or (is_among_others and not _is_lock(path)):
        os.close(descriptor)
        raise _no_lock(path)
    return descriptor


def _is_lock(path: Path) -> bool:
    """Whether a file is what `_Heart` writes, maybe half of it, or empty."""
    content = path.read_bytes().strip(b"\0")
    if not content or _read(path)[0] is not None:
        return True
    try:
        json.loads(content)
    except ValueError:
        return content.startswith(b'{"host": "')
    return False


def _no_lock(path: Path) -> UserError:
    return UserError(f"{path} is not what diffugen locks an output with; move it elsewhere, or choose another --out")


def _real(path: Path) -> Path:
    """A path as it is without links above it."""
    return Path(os.path.realpath(path.parent)) / path.name


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _flock(descriptor: int, folder: Path, path: Path) -> bool:
    """Whether the file system's own lock was taken; False where there is none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise _in_use(folder, _read(path)[0]) from None
        return False
    return True


def _check_gone(folder: Path, path: Path, inode: int, has_flock: bool) -> None:
    """Check that the process that the lock file names is gone."""
    owner, beat = _read(path)
    if owner is None:
        return
    here = _processes()
    if has_flock and (owner.host == socket.gethostname() or owner.processes.split()[:1] == here.split()[:1]):
        return  # all processes of a machine share its locks
    if here and owner.processes == here:
        if _start_of(owner.pid) != owner.started:
            return
        if owner.inode == inode:
            raise _in_use(folder, owner)
    say(f"{path} names {owner}; waiting {PATIENCE_SECONDS:.0f} s for a sign of life")
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        time.sleep(min(BEAT_SECONDS, PATIENCE_SECONDS) / 4)
        if _read(path) != (owner, beat):
            raise _in_use(folder, _read(path)[0] or owner)


def _in_use(folder: Path, owner: Owner | None) -> UserError:
    return UserError(
        f"folder {folder} is in use by {owner or 'another process'}; wait for it, or choose another with --out"
    )


class _Heart:
    """Writes the lock file, and writes it again every few seconds; stops the process if another has taken over.

    Args:
        descriptor: of the lock file, open for reading and writing.
        path: its path.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        pid = os.getpid()
        self._owner = Owner(
            host=socket.gethostname(),
            pid=pid,
            processes=_processes(),
            started=_start_of(pid),
            inode=os.fstat(descriptor).st_ino,
            token=secrets.token_hex(8),
        )
        self._descriptor, self._path, self._count = descriptor, path, 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lock", daemon=True)

    def beat(self) -> None:
        """Write the owner with a higher count."""
        self._count += 1
        record = {**asdict(self._owner), "beat": self._count, "time": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        content = json.dumps(record).encode() + b"\n"
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)  # machines that share the file system must see it

    def is_owner(self) -> bool:
        """Whether the lock file still names this lock."""
        return _read(self._path)[0] in (self._owner, None)

    def start(self) -> None:
        """Go on beating in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more, and give the folder free."""
        self._stopped.set()
        self._thread.join()
        if self.is_owner():
            os.ftruncate(self._descriptor, 0)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                if not self.is_owner():
                    logger.error("%s: another process has taken over this folder; this one stops", self._path.parent)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self.beat()
            except OSError as error:  # a full disk, a server that is away: the next beat may come through
                logger.debug("the lock %s could not be written: %s", self._path, error)


def _read(path: Path) -> tuple[Owner | None, int]:
    """Who a lock file names and its beat; nobody where it is empty, half written or of an earlier version."""
    try:
        record: Any = json.loads(path.read_bytes())
        owner = Owner(**{field.name: record[field.name] for field in fields(Owner)})
        return owner, int(record["beat"])
    except (OSError, ValueError, TypeError, KeyError):
        return None, 0


def _processes() -> str:
    """Names this machine's table of processes since it was started; containers have tables of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: processes are not looked up
        return ""


def _start_of(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty where there is none, or nobody knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
