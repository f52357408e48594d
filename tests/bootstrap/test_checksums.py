"""Rounds are checked: a file that changed is named; in an unfinished round it is made again with what depends on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import DAMAGES, delete, empty

from bootstrap.checksums import check_rounds, check_unfinished, complete_round, note_finished
from bootstrap.run_folder import RoundFolder, RunFolder
from diffugen.errors import UserError
from diffugen.files import link_file, read_json, write_json
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


def test_an_unfinished_round_is_no_finished_one(run: RunFolder, tmp_path: Path) -> None:
    RoundFolder(run.round(1).path).metrics.unlink()
    flip_a_bit(run.round(1).weights)
    check_rounds(run)


STAGES = (
    ("masks/0.png", "masks/1.png", "samples.jsonl"),
    ("relabelled_00.jsonl",),
    ("dataset/data.yaml", "dataset/labels/train/a.txt"),
    ("weights/best.pt",),
    ("folds/0.pt", "evidence.json"),
    ("validation.json", "decision.json"),
)
FILES = [name for stage in STAGES for name in stage]


@pytest.fixture
def unfinished(tmp_path: Path) -> RoundFolder:
    """A round that only lacks its metrics, with images that no stage noted."""
    folder = RoundFolder(tmp_path / "run" / "round_01")
    for name in ("images/0.png", *FILES):
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 9)
        if name in FILES:
            note_finished(folder, path)
    return folder


def files_of(folder: RoundFolder) -> set[str]:
    return {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}


def test_an_intact_unfinished_round_stays_as_it_is(unfinished: RoundFolder, caplog: pytest.LogCaptureFixture) -> None:
    (unfinished.path / "dataset" / "labels" / "train.cache").write_text("ultralytics")
    before = files_of(unfinished)
    check_unfinished(unfinished)
    assert files_of(unfinished) == before and not caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_an_unfinished_round_goes_with_all_that_was_made_after_it(
    name: str, damage: Callable[[Path], None], unfinished: RoundFolder, caplog: pytest.LogCaptureFixture
) -> None:
    before = files_of(unfinished)
    damage(unfinished.path / name)
    with caplog.at_level(logging.WARNING):
        check_unfinished(unfinished)
    assert str(unfinished.path / name) in caplog.text
    number = next(number for number, stage in enumerate(STAGES) if name in stage)
    later = {name for stage in STAGES[number:] for name in stage if not name.startswith("masks")}
    assert before - files_of(unfinished) == ({name} if name.startswith("masks") else later)
    noted = set(read_json(unfinished.checksums))
    assert noted == files_of(unfinished) - {"images/0.png", "checksums.json"}


@pytest.mark.parametrize("number", range(1, len(FILES)))
def test_a_kill_before_a_file_was_noted_makes_its_stage_again(number: int, unfinished: RoundFolder) -> None:
    for name in FILES[number:]:
        (unfinished.path / name).unlink()
    sums = read_json(unfinished.checksums)
    write_json(unfinished.checksums, {name: sums[name] for name in FILES[: number - 1]})
    check_unfinished(unfinished)
    last = FILES[number - 1]
    stage = next(stage for stage in STAGES if last in stage)
    again = {last} if last.startswith("masks") else {name for name in stage if not name.startswith("masks")}
    left = files_of(unfinished) - {"images/0.png", "checksums.json"}
    assert left - {name for name in FILES if name.startswith("masks")} == set(FILES[:number]) - again - {
        name for name in FILES if name.startswith("masks")
    }


@pytest.mark.parametrize("damage", [delete, empty])
def test_without_its_checksums_an_unfinished_round_keeps_its_images_alone(
    damage: Callable[[Path], None], unfinished: RoundFolder, caplog: pytest.LogCaptureFixture
) -> None:
    damage(unfinished.checksums)
    check_unfinished(unfinished)
    assert str(unfinished.checksums) in caplog.text
    assert files_of(unfinished) == {"images/0.png", "masks/0.png", "masks/1.png"}


def test_completing_a_round_keeps_what_was_noted(unfinished: RoundFolder, tmp_path: Path) -> None:
    """A file that was damaged in between is found by the next check."""
    flip_a_bit(unfinished.path / "folds" / "0.pt")
    first = RoundFolder(tmp_path / "run" / "round_00")
    complete_round(first, {"round": 0})
    complete_round(unfinished, {"round": 1})
    with pytest.raises(UserError, match=r"round_01/folds/0\.pt is corrupt"):
        check_rounds(RunFolder(tmp_path / "run"))


@pytest.mark.parametrize("name", ["masks/../../../outside.txt", "/outside.txt", "../outside.txt", ""])
def test_names_that_lead_out_of_a_round_are_refused(run: RunFolder, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("the user's")
    folder = run.round(1)
    write_json(folder.checksums, {name: "0" * 64})
    with pytest.raises(UserError, match=r"checksums\.json is corrupt"):
        check_rounds(run)
    folder.metrics.unlink()
    check_unfinished(folder)
    assert outside.read_text() == "the user's"


def test_a_round_whose_completion_was_cut_off_is_completed_later(run: RunFolder) -> None:
    """Killed between its checksums and its metrics; going on adds to the seconds."""
    folder = run.round(1)
    with folder.timed("evaluate"):
        pass
    complete_round(folder, {"round": 1})
    folder.metrics.unlink()
    check_unfinished(folder)
    with folder.timed("evaluate"):
        sum(range(10**6))
    complete_round(folder, {"round": 1})
    check_rounds(run)
