"""Folders of strangers lead nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffugen.contained import check_contained, file_inside
from diffugen.errors import UserError


def test_links_that_stay_inside_are_fine(tmp_path: Path) -> None:
    (tmp_path / "run" / "a").mkdir(parents=True)
    (tmp_path / "run" / "b").symlink_to("a")
    (tmp_path / "run" / "circle").symlink_to("circle")
    check_contained(tmp_path / "run", "run folder")


@pytest.mark.parametrize("target", ["..", "../other", "/etc", "../run2"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "run" / "a").mkdir(parents=True)
    (tmp_path / "run2").mkdir()
    (tmp_path / "run" / "a" / "link").symlink_to(Path("..", target))
    with pytest.raises(UserError, match="link is a symbolic link that leads out of the run folder"):
        check_contained(tmp_path / "run", "run folder")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"config\.json is no regular file"):
        check_contained(tmp_path, "run folder")


def test_a_folder_that_nothing_reads_is_passed_over(tmp_path: Path) -> None:
    for folder in (tmp_path / "wandb", tmp_path / "round_00" / "wandb"):
        folder.mkdir(parents=True)
    (tmp_path / "wandb" / "link").symlink_to("/etc")
    check_contained(tmp_path, "run folder", passed_over="wandb")
    (tmp_path / "round_00" / "wandb" / "link").symlink_to("/etc")
    with pytest.raises(UserError, match="round_00/wandb/link"):
        check_contained(tmp_path, "run folder", passed_over="wandb")


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/../../b", "a\0b", None, 3])
def test_only_files_inside_are_named(tmp_path: Path, name: object) -> None:
    with pytest.raises(ValueError, match="no file in"):
        file_inside(tmp_path, name)


def test_a_file_in_a_folder(tmp_path: Path) -> None:
    assert file_inside(tmp_path, "images/a..png") == tmp_path / "images" / "a..png"
