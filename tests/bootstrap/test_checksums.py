"""Finished rounds are checked: whatever file has changed since is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootstrap.checksums import check_rounds, complete_round
from bootstrap.run_folder import RoundFolder, RunFolder
from diffugen.errors import UserError
from diffugen.files import link_file, read_json
from diffugen.sample import write_samples


@pytest.fixture
def run(tmp_path: Path, make_samples: Callable) -> RunFolder:
    """Two complete rounds, the second of which shares an image with the first."""
    run = RunFolder(tmp_path / "run")
    for folder in (run.round(0), run.round(1)):
        write_samples(folder.samples, make_samples(folder.path, [[0], [0, 1]]))
        folder.weights.parent.mkdir()
        folder.weights.write_bytes(b"weights" * 1000)
        (folder.path / "labels.cache").write_bytes(b"whatever ultralytics remembers")
        if folder.index:
            link_file(run.round(0).path / "images" / "000000.png", folder.path / "images" / "shared.png")
        complete_round(folder, {"round": folder.index, "why": "größer"})
    return run


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_untouched_rounds_pass(run: RunFolder) -> None:
    (run.round(1).path / "labels.cache").write_bytes(b"something else")
    check_rounds(run)
    assert read_json(run.round(1).metrics) == {"round": 1, "why": "größer"}


@pytest.mark.parametrize(
    "name", ["samples.jsonl", "metrics.json", "images/000001.png", "heatmaps/000000.npz", "weights/best.pt"]
)
def test_one_flipped_bit_is_found_and_the_file_named(run: RunFolder, name: str) -> None:
    flip_a_bit(run.round(0).path / name)
    with pytest.raises(UserError, match=rf"round_00/{name} is corrupt: .* remove round_00 and the rounds after it"):
        check_rounds(run)


def test_a_missing_file_is_named(run: RunFolder) -> None:
    run.round(1).weights.unlink()
    with pytest.raises(UserError, match=r"round_01/weights/best.pt is missing: .* restore it from a copy"):
        check_rounds(run)


def test_broken_checksums_are_named(run: RunFolder) -> None:
    run.round(1).checksums.write_text('{"samples.jsonl": ')
    with pytest.raises(UserError, match=r"round_01/checksums.json is corrupt"):
        check_rounds(run)


def test_an_unfinished_round_is_not_checked(run: RunFolder, tmp_path: Path) -> None:
    RoundFolder(run.round(1).path).metrics.unlink()
    flip_a_bit(run.round(1).weights)
    check_rounds(run)
