"""What a run publishes replaces only what it published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bootstrap.published import check_published, is_run, publish
from bootstrap.run_folder import RunFolder
from diffugen.datasets.folder import write_dataset
from diffugen.errors import UserError
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.outputs import MARKER
from diffugen.sample import Sample


def run_of(path: Path, rounds: int = 2) -> RunFolder:
    """A run whose rounds were all promoted, with published files."""
    run = RunFolder(path)
    for index in range(rounds):
        folder = run.round(index)
        image = np.full((16, 16, 3), index, np.uint8)
        sample = Sample.labelled("a", image, Instances.empty((16, 16)), "train", {})
        write_dataset(folder.dataset, [sample], ["piano", f"car {index}"])
        folder.weights.parent.mkdir(parents=True)
        folder.weights.write_text(f"weights of round {index}")
        write_json(folder.metrics, {"round": index, "promoted": True})
        publish(run)
    run.report.write_text("<!doctype html>\n<title>demo · diffugen</title>\n")
    return run


def test_a_run_replaces_what_it_published(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    check_published(run)
    assert run.best.read_text() == "weights of round 1"
    assert "car 1" in (run.dataset / "data.yaml").read_text()


def test_a_run_without_links_or_markers_is_its_own(tmp_path: Path) -> None:
    """It was copied elsewhere, or is of an earlier version."""
    run = run_of(tmp_path)
    content = run.best.read_bytes()
    run.best.unlink()
    run.best.write_bytes(content)
    check_published(run)
    (run.dataset / MARKER).unlink()
    check_published(run)


@pytest.mark.parametrize("name", ["best.pt", "report.html", "dataset"])
def test_what_is_the_users_stays(name: str, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    if name == "dataset":
        (run.dataset / "mine.txt").write_text("mine")
    else:
        (run.path / name).unlink()
        (run.path / name).write_text("mine")
    with pytest.raises(UserError, match=name):
        check_published(run)
    if name != "report.html":  # which is written, not published
        write_json(run.round(2).metrics, {"round": 2, "promoted": True})
        (run.round(2).weights).parent.mkdir()
        run.round(2).weights.write_text("weights of round 2")
        with pytest.raises(UserError, match=name):
            publish(run)
    mine = run.path / name / "mine.txt" if name == "dataset" else run.path / name
    assert mine.read_text() == "mine"


def test_runs_of_earlier_versions_are_recognised(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    for content, known in (
        ("{", False),
        ("[]", False),
        ('{"config": {}}', False),
        ('{"config": {}, "versions": {}, "sha256": {}}', True),
    ):
        (tmp_path / "config.json").write_text(content)
        assert is_run(tmp_path) is known


def test_what_a_removed_round_published_is_replaced(tmp_path: Path) -> None:
    """A message may advise to remove a round, which is then made again."""
    run = run_of(tmp_path)
    shutil.rmtree(run.round(1).path)
    check_published(run)
    publish(run)
    assert run.best.read_text() == "weights of round 0"
    run.best.unlink()
    run.best.write_text("mine")
    with pytest.raises(UserError, match=r"best\.pt is not the checkpoint of a round of this run"):
        check_published(run)
