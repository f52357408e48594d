"""What every command of the project shares: exit codes, and errors as one sentence."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffugen.config_errors import ConfigError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM


class _Terminated(BaseException):
    """SIGTERM came; raised so that what is half done is cleaned up."""


def run_command(command: Callable[[], int | None], program: str = "diffugen") -> int:
    """Run a command and return its exit code: what the user did wrong becomes one sentence, not a traceback.

    Args:
        command: does the work; returns an exit code or None for 0.
        program: name in front of the messages.

    Returns:
        The command's code; 2 after a ConfigError or a full disk; 130 after Ctrl-C; 143 after SIGTERM.
    """
    logging.basicConfig(level=logging.WARNING, format=f"{program}: %(message)s")
    try:
        with _sigterm_raises():
            return command() or 0
    except ConfigError as error:
        return _fail(program, str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output (head, less) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f" for {error.filename}" if error.filename else ""
        return _fail(program, f"no space left on the disk{place}; free some, and the same command goes on")
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except _Terminated:
        print(f"{program}: terminated; the same command goes on from here", file=sys.stderr)
        return EXIT_TERMINATED


def _fail(program: str, message: str) -> int:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_USER_ERROR


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def terminate(number: int, frame: Any) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
