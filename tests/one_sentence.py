"""What a command that fails prints."""

from __future__ import annotations

import pytest


def error_of(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one sentence that a failed `diffugen` command printed."""
    printed = capsys.readouterr()
    assert code == 2
    lines = [line for line in printed.err.splitlines() if line.startswith("diffugen: ")]
    assert "Traceback" not in printed.err
    assert len(lines) == 1 and lines[0].startswith("diffugen: error: ")
    return lines[0].removeprefix("diffugen: error: ")
