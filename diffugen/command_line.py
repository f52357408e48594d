"""What every command of the project shares: exit codes, and errors as one sentence."""

from __future__ import annotations

import argparse
import errno
import functools
import io
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from diffugen.errors import UserError, UserErrors, reason_of
from diffugen.files import full_disk_message
from diffugen.naming import path_trouble
from diffugen.registered import COMMANDS, registered

USER_THREADS = os.environ.get("OMP_NUM_THREADS")
"""What the user set, before a library changes it."""

EXIT_USER_ERROR = 2
EXIT_SIGNAL = 128
"""Added to the number of the signal that stopped a command: 130 after SIGINT, 143 after SIGTERM."""


class _Terminated(BaseException):
    """SIGTERM came; raised so that what is half done is cleaned up."""


def run_command(command: Callable[[], int | None], program: str = "diffugen") -> int:
    """Run a command and return its exit code: what the user did wrong becomes one sentence, not a traceback.

    Args:
        command: does the work; returns an exit code or None for 0.
        program: name in front of the messages.

    Returns:
        The command's code; 2 after a UserError, a full disk or too large a batch; 130 after SIGINT (Ctrl-C) and 143
        after SIGTERM, when the message names the command line that goes on.
    """
    only_our_warnings(program)
    # Before torch is loaded: threads that spin while they wait take the cores that others need, on a busy machine.
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    came: list[signal.Signals] = []
    try:
        with _signals_raise(came):
            return command() or 0
    except BaseException as error:
        if came:  # whatever the libraries on the way made of the exception
            return _stopped(program, came[0])
        if isinstance(error, UserError):
            return _fail(program, str(error), keep_lines=isinstance(error, UserErrors))
        if isinstance(error, BrokenPipeError):  # the reader of our output (head, less) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return _fail(program, f"{str(error.filename)[:100]} is no possible path ({error.strerror}); give another")
        if message := full_disk_message(error):
            return _fail(program, message)
        if message := _memory_message(error):
            return _fail(program, message)
        raise


def path_option(text: str) -> Path:
    """The type of options that are paths: refuses what cannot be one, before any work."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; write one")
    if trouble := path_trouble(text):
        raise argparse.ArgumentTypeError(f"{text[:60]!a} {trouble}; give another path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no path ({reason_of(error)}); give another path") from None


def _memory_message(error: BaseException) -> str:
    """Too little memory in one sentence; empty for other errors."""
    if isinstance(error, getattr(sys.modules.get("torch"), "OutOfMemoryError", ())):
        return f"the GPU's memory is too small for this ({error}); take smaller images or batches"
    signs = ("can't allocate memory", "Insufficient memory")  # torch's and OpenCV's; numpy raises a MemoryError
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in signs):
        return f"this machine's memory is too small for this ({error}); take smaller images or batches"
    return ""


def only_our_warnings(program: str) -> None:
    """Print warnings of ours as sentences, and none of libraries: nobody who runs a command can act on those.

    `python -W default -m diffugen ...` shows the libraries' Python warnings.
    """
    for library in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB"):  # these have handlers of their own
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    root = logging.getLogger()
    if root.handlers:  # whoever called us has decided
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    handler.addFilter(lambda record: record.levelno >= logging.ERROR or record.name.split(".")[0] in _our_packages())
    root.addHandler(handler)


@functools.cache
def _our_packages() -> set[str]:
    """This package, and those that register commands with it."""
    registrants = {entry.module.split(".")[0] for entry in registered(COMMANDS).values()}
    return {"diffugen", "__main__", *registrants}


def _fail(program: str, message: str, *, keep_lines: bool = False) -> int:
    lines = [" ".join(line.split()) for line in (message.split("\n") if keep_lines else [message])]
    print(f"{program}: error: " + "\n  ".join(lines), file=sys.stderr)
    return EXIT_USER_ERROR


def _stopped(program: str, number: signal.Signals) -> int:
    print(f"{program}: stopped by {number.name}; to resume, run: {shlex.join(_command_line())}", file=sys.stderr)
    return EXIT_SIGNAL + number


def _command_line() -> list[str]:
    """The running command, as the user typed it: an installed script's file is named as the shell finds it."""
    words = list(sys.orig_argv)
    if len(words) > 1 and shutil.which(Path(words[1]).name) == words[1]:
        return [Path(words[1]).name, *words[2:]]
    return words


@contextmanager
def _signals_raise(came: list[signal.Signals]) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise, and note in `came` that they did."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def stop(number: int, frame: Any) -> NoReturn:
        came.append(signal.Signals(number))
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
