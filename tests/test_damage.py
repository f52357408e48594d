"""A killed run whose files are damaged: what is damaged is named and made again, or the run refuses in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from damage import DAMAGES, delete, empty, flip, halve
from loop_run import before_the_last_round, decisions, error_of, metrics_without

import train_loop
from bootstrap.run_folder import RunFolder

KINDS = [
    "round_01/images/*.png",
    "round_01/heatmaps/*.npz",
    "round_01/parts/batch_*.jsonl",
    "round_01/samples.jsonl",
    "round_01/masks/*.png",
    "round_01/relabelled_00.jsonl",
    "round_01/dataset/images/*/*.png",
    "round_01/dataset/labels/*/*.txt",
    "round_01/dataset/coco/*.json",
    "round_01/dataset/data.yaml",
    "round_01/weights/best.pt",
    "round_01/evidence.json",
    "round_01/validation.json",
    "round_01/decision.json",
    "round_01/seconds.json",
    "round_01/checksums.json",
    "photos/*/images/*.png",
    "photos/*/heatmaps/*.npz",
    "photos/*/parts/photos.jsonl",
    "concept/learned_embeds.safetensors",
    "metrics.jsonl",
    ".diffugen.json",
]
"""Files of a run that was killed before its last round was complete; all can be made again."""

REFUSED = ["config.json", "concept/concept.json", "round_00/samples.jsonl", "round_00/images/000000.png", "best.pt"]


@pytest.fixture
def killed(finished_loop: RunFolder, tmp_path: Path) -> RunFolder:
    """A run that was killed when all but the last round's metrics were there, and the first round's was published."""
    return before_the_last_round(finished_loop, tmp_path / "run")


def damage_all(run: RunFolder, pattern: str, damage: Callable[[Path], None]) -> list[Path]:
    paths = sorted(run.path.glob(pattern))
    for path in paths:
        content = path.read_bytes()
        path.unlink()  # not the finished files that share its bytes
        path.write_bytes(content)
        damage(path)
    return paths


def arguments(run: RunFolder, inputs: Path) -> list[str]:
    return [str(inputs / "config.json"), "--out", str(run.path)]


def check_same(run: RunFolder, undisturbed: RunFolder) -> None:
    assert decisions(run) == decisions(undisturbed)
    assert metrics_without(run, "seconds") == metrics_without(undisturbed, "seconds")


def test_a_run_that_was_damaged_all_over_ends_like_one_that_was_not(
    killed: RunFolder, finished_loop: RunFolder, loop_inputs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for pattern, damage in zip(KINDS, cycle(DAMAGES)):
        damage_all(killed, pattern, damage)
    damage_all(killed, "dataset/labels/*/*.txt", delete)  # others count as changes of the user's
    with caplog.at_level(logging.WARNING):
        assert train_loop.main(arguments(killed, loop_inputs)) == 0
    check_same(killed, finished_loop)
    for name in ("photos.jsonl", "round_01/parts/batch_000000.jsonl"):
        assert name in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", KINDS)
def test_a_damaged_kind_of_file_is_made_again(
    pattern: str, damage: Callable[[Path], None], killed: RunFolder, finished_loop: RunFolder, loop_inputs: Path
) -> None:
    assert damage_all(killed, pattern, damage)
    assert train_loop.main(arguments(killed, loop_inputs)) == 0
    check_same(killed, finished_loop)


def flip_a_setting(path: Path) -> None:
    """Half of a concept's record are checksums of files that nothing but the report needs."""
    text = path.read_text()
    path.write_text(text.replace('"batch_size": 1', '"batch_size": 3'))


@pytest.mark.parametrize("damage", [empty, halve, flip])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_made_again_is_named(
    name: str,
    damage: Callable[[Path], None],
    killed: RunFolder,
    loop_inputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage_all(killed, name, flip_a_setting if (name, damage) == ("concept/concept.json", flip) else damage)
    assert Path(name).name in error_of(arguments(killed, loop_inputs), capsys)


def test_a_file_of_a_finished_round_that_is_gone_is_named(
    killed: RunFolder, loop_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_all(killed, "round_00/heatmaps/000003.npz", delete)
    assert "round_00/heatmaps/000003.npz is missing" in error_of(arguments(killed, loop_inputs), capsys)
