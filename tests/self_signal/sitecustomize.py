"""Put this folder on PYTHONPATH, and a Python process sends itself a signal at a moment told by the environment.

SIGNAL_AT="SIGKILL 3 round_00/masks/*" means: the third time that it is about to write, link or rename to a path of the
folder SIGNAL_IN that matches. Between two such moments nothing on the disk changes, so that a signal in between leaves
what one at the next of them leaves.
"""

import os
import signal
import sys
from fnmatch import fnmatch


def install(told: str, folder: str) -> None:
    name, number, pattern = told.split(" ", 2)
    left = int(number)

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, str) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in ("os.rename", "os.link"):
            path = os.fspath(arguments[1])
        else:
            return
        if path.startswith(folder) and fnmatch(path[len(folder) + 1 :], pattern):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), getattr(signal, name))

    sys.addaudithook(watch)


if "SIGNAL_AT" in os.environ:
    install(os.environ.pop("SIGNAL_AT"), os.environ["SIGNAL_IN"])
