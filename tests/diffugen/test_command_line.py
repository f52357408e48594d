"""Exit codes, and what a command prints when it fails or is stopped."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffugen.command_line import run_command
from diffugen.errors import UserError


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_commands_own_code_is_returned(returned: int | None, code: int) -> None:
    assert run_command(lambda: returned) == code


def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(UserError("bad\nthing;  fix it")), "train_loop") == 2
    assert capsys.readouterr().err == "train_loop: error: bad thing; fix it\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str], number: int) -> None:
    assert run_command(failing(OSError(number, "full", "runs/a.png"))) == 2
    assert capsys.readouterr().err == (
        "diffugen: error: no space left on the disk for runs/a.png; free some, and the same command goes on\n"
    )


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP])
def test_a_path_that_cannot_be_is_one_sentence(capsys: pytest.CaptureFixture[str], number: int) -> None:
    assert run_command(failing(OSError(number, os.strerror(number), "x" * 5000))) == 2
    message = capsys.readouterr().err
    assert f"xx is no possible path ({os.strerror(number)}); give another" in message and len(message) < 300


def test_too_little_gpu_memory_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(torch.OutOfMemoryError("CUDA out of memory"))) == 2
    assert "the GPU's memory is too small for this (CUDA out of memory); take" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 90. TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes"),
        ValueError("(-4:Insufficient memory) Failed to allocate 3000000000000 bytes"),
    ],
)
def test_too_little_memory_is_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(error)) == 2
    assert "this machine's memory is too small for this" in capsys.readouterr().err


def test_our_own_mistakes_stay_visible() -> None:
    with pytest.raises(ZeroDivisionError, match="ours"):
        run_command(failing(ZeroDivisionError("ours")))
    with pytest.raises(PermissionError, match="not allowed"):
        run_command(failing(PermissionError(errno.EACCES, "not allowed")))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("becomes", [None, RuntimeError("an import failed"), SystemExit(1)])
def test_a_signal_stops_cleanly_and_the_command_that_goes_on_is_named(
    number: signal.Signals,
    code: int,
    becomes: BaseException | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where a library turns the signal's exception into one of its own."""
    command_line = ["python", "train_loop.py", "my config.json", "--set", "name='x'"]
    monkeypatch.setattr(sys, "orig_argv", command_line)
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    cleaned = []

    def command() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except BaseException:
            if becomes is not None:
                raise becomes from None
            raise
        finally:
            cleaned.append(True)

    assert run_command(command, "train_loop") == code
    assert cleaned == [True]
    message, _, named = capsys.readouterr().err.partition("; to resume, run: ")
    assert message == f"train_loop: stopped by {number.name}"
    assert shlex.split(named) == command_line
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_command_that_resumes_is_named_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell finds an installed command by its name, so its file and its interpreter are left out."""
    installed = tmp_path / "diffugen"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    def command() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    for script, words in ((str(installed), ["diffugen"]), ("/elsewhere/diffugen", ["python", "/elsewhere/diffugen"])):
        monkeypatch.setattr(sys, "orig_argv", ["python", script, "loop", "demo.json"])
        assert run_command(command) == 130
        assert capsys.readouterr().err.endswith(f"; to resume, run: {shlex.join([*words, 'loop', 'demo.json'])}\n")


def test_our_warnings_reach_the_user_and_those_of_libraries_do_not() -> None:
    code = """
import logging, warnings
from diffugen.command_line import run_command
def command():
    import transformers
    logging.getLogger("diffugen.x").warning("of ours")
    logging.getLogger("bootstrap.x").warning("of a package that registers a command")
    logging.getLogger("transformers.x").warning("of transformers")
    from huggingface_hub.utils import logging as hub_logging
    hub_logging.get_logger("huggingface_hub.x").warning("of the hub's client: a request is retried")
    logging.getLogger("some.library").warning("of a library")
    logging.getLogger("some.library").error("an error")
    warnings.warn("of Python")
run_command(command)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    messages = ["of ours", "of a package that registers a command", "an error"]
    assert done.stderr.splitlines() == [f"diffugen: {text}" for text in messages]


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"GOMP_SPINCOUNT": "9"}, None)])
def test_threads_wait_passively_unless_the_user_says_otherwise(
    given: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen: list[str | None] = []
    assert run_command(lambda: seen.append(os.environ.get("OMP_WAIT_POLICY"))) == 0
    assert seen == [policy]
