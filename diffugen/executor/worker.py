"""A worker process on this machine: `python -m diffugen.executor.worker FD`, where FD leads to its driver.

A thread reads what the driver sends, so that the end of the driver, however it comes, ends the worker at once.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from diffugen.command_line import only_our_warnings
from diffugen.errors import UserError
from diffugen.executor.base import Progress, Task
from diffugen.executor.records import make_shard
from diffugen.files import full_disk_message, name_temporaries

Send = Callable[[tuple[str, Any]], None]


def main(descriptor: int) -> int:
    """Load the models, then make shards until the driver is gone; returns 1 after an error that is no UserError."""
    connection = Connection(descriptor)
    inbox: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    only_our_warnings("diffugen: worker")
    name_temporaries()
    try:
        _serve(pickle.loads(inbox.get()), inbox, connection.send)
    except BaseException as error:
        if message := refusal(error):
            connection.send(("refused", message))
        else:
            traceback.print_exc()
            connection.send(("died", f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _serve(task: Task, inbox: queue.Queue[bytes], send: Send) -> None:
    work = task.job.load()
    send(("ready", None))
    while True:
        shard = pickle.loads(inbox.get())
        progress = Progress()

        def advance(num: int, *, made: bool = True) -> None:
            nonlocal progress
            progress = progress.after(num, made=made)
            send(("progress", progress))

        make_shard(task, work, shard, advance)
        send(("done", progress))


def _read(connection: Connection, inbox: queue.Queue[bytes]) -> None:
    while True:
        try:
            inbox.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def refusal(error: BaseException) -> str:
    """What an error says that the user can mend, so that no other worker need try; empty for all others."""
    return str(error) if isinstance(error, UserError) else full_disk_message(error)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
