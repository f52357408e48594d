"""A command writes only into a folder that is new, empty or its own; nothing of anybody else's is replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from diffugen import versions
from diffugen.errors import UserError
from diffugen.files import read_json, write_json
from diffugen.outputs import MARKER, check_output, check_output_file, claim_output, new_output, paths_in, read_marker


def write(folder: Path, **files: str) -> None:
    """Write a folder as a command does."""
    with new_output(folder, "label") as out:
        for name, text in (files or {"a": "a"}).items():
            (out / name).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else "folder" for path in folder.rglob("*")
    }


def test_new_and_empty_folders_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()
    for name in ("new", "empty", "deep/er"):
        write(tmp_path / name)
        assert set(tree(tmp_path / name)) == {"a", MARKER}
        marker = read_marker(tmp_path / name)
        assert marker and marker["command"] == "label" and marker["files"] == {"a": 1}


def test_what_the_command_wrote_it_replaces(tmp_path: Path) -> None:
    write(tmp_path / "out", old="1")
    (tmp_path / "out" / "labels.cache").write_text("ultralytics keeps what it read")
    (tmp_path / "out" / "old").unlink()  # removing is allowed
    write(tmp_path / "out", new="1")
    assert set(tree(tmp_path / "out")) == {"new", MARKER}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def file(folder: Path, name: str, text: str = "") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def others(out: Path) -> None:
    write_json(out / MARKER, {"command": "loop"})
    file(out, "a")


def broken(out: Path, marker: str) -> None:
    file(out, MARKER, marker)
    file(out, "a")


def own(out: Path, change: Callable[[], object]) -> None:
    write(out)
    change()


CHANGED = "was added or changed since `diffugen label` wrote it"
SOMEBODYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder with files": (lambda out: file(out, "thesis.txt"), r"did not write \(such as thesis\.txt\)"),
    "a folder with a hidden folder": (lambda out: file(out, ".git/config"), r"such as \.git"),
    "another command's": (others, "holds what `diffugen loop` wrote"),
    "a broken marker": (lambda out: broken(out, "{"), "did not write"),
    "a marker of another form": (lambda out: broken(out, "[]"), "did not write"),
    "a marker without a list": (lambda out: broken(out, '{"command": "label", "files": 1}'), f"a {CHANGED}"),
    "with a file more": (lambda out: own(out, lambda: file(out, "deep/n")), f"deep/n {CHANGED}"),
    "with a changed file": (lambda out: own(out, lambda: file(out, "a", "longer")), f"a {CHANGED}"),
    "with a link more": (lambda out: own(out, lambda: (out / "link").symlink_to(out.parent)), f"link {CHANGED}"),
}


@pytest.mark.parametrize("whose", SOMEBODYS)
def test_what_is_somebody_elses_stays(whose: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prepare, sentence = SOMEBODYS[whose]
    prepare(out)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=rf"--out .*out .*{sentence}"):
        write(out, b="b")
    assert tree(tmp_path) == before


def test_what_comes_while_the_work_goes_on_stays(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="thesis"), new_output(tmp_path / "out", "label") as folder:
        (folder / "a").touch()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis").write_text("mine")
    assert tree(tmp_path) == {"out": "folder", "out/thesis": "mine"}


def test_places_where_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "round").symlink_to(tmp_path / "round")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for place, sentence in {
        tmp_path / "file": "is a file; give a folder",
        tmp_path / "file" / "sub": r"cannot be written \(.*file is a file\)",
        tmp_path / "link": "is a symbolic link",
        tmp_path / "round" / "sub": "cannot be written",
        tmp_path / ("x" * 300): r"cannot be written \(File name too long\)",
        tmp_path / "a\0b": r"cannot be written \(it has a NUL character\)",
        Path("."): "is the working folder; give a folder of its own, such as --out out",
        Path(""): "is the working folder",
        tmp_path / "elsewhere": "is the working folder",
        Path("/proc/nothing"): "cannot be written",
    }.items():
        for use in (lambda place=place: claim_output(place, "loop"), lambda place=place: write(place)):
            with pytest.raises(UserError, match=sentence):
                use()
    assert tree(tmp_path / "elsewhere") == {} and (tmp_path / "file").read_text() == "mine"


def test_read_only_places_are_reported_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match=rf"cannot be written \({tmp_path} is read-only\); give another place"):
        check_output(tmp_path / "deep" / "out", "label")


def test_never_into_above_or_below_the_inputs(tmp_path: Path) -> None:
    photos = tmp_path / "home" / "photos"
    photos.mkdir(parents=True)
    (photos / "a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for out, sentence in {
        photos: "is the input",
        photos / "found": "lies in the input",
        photos / "deep" / "found": "lies in the input",
        tmp_path / "home": "holds the input",
        tmp_path / "link" / "photos": "is the input",
        tmp_path / "link" / "photos" / "found": "lies in the input",
    }.items():
        for source in (photos, tmp_path / "link" / "photos"):
            with pytest.raises(UserError, match=rf"{sentence} .*photos; give a place apart from it"):
                check_output(out, "label", [tmp_path / "gone", source])
    with pytest.raises(UserError, match=r"holds the input .*a\.png"):
        check_output(photos, "label", [photos / "a.png"])
    check_output(tmp_path / "home" / "found", "label", [photos, photos / "a.png", tmp_path / "gone"])
    check_output(photos / "found", "label", [photos / "a.png"])  # beside a file that is read


def test_a_claimed_folder_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for _ in range(2):
        claim_output(out, "loop")
        (out / "round_00").mkdir(exist_ok=True)
        (out / "notes.txt").write_text("mine: nothing here is replaced")
    with pytest.raises(UserError, match="holds what `diffugen loop` wrote, says its .diffugen.json; give a new folder"):
        claim_output(out, "generate")
    assert read_json(out / MARKER)["command"] == "loop"


def test_folders_of_earlier_versions_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="did not write"):
        claim_output(tmp_path, "loop", is_earlier=lambda folder: (folder / "versions.json").is_file())
    claim_output(tmp_path, "loop", is_earlier=lambda folder: (folder / "config.json").is_file())
    assert read_json(tmp_path / MARKER)["command"] == "loop"


def test_files_are_replaced_by_their_own_kind_only(tmp_path: Path) -> None:
    def check(name: str, *inputs: Path) -> None:
        check_output_file(tmp_path / name, inputs, option="--json", is_own=lambda path: path.read_text() == "ours")

    for name, text in (("empty", ""), ("ours", "ours"), ("mine", "mine")):
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    os.mkfifo(tmp_path / "pipe")
    check("new")
    check("deep/new")
    check("empty")
    check("ours")
    for name, sentence in {
        "mine": "is there and not what this command writes",
        "pipe": "is there and not what this command writes",
        "folder": "is a folder",
        "link": "is a symbolic link",
        "mine/new": "cannot be written",
    }.items():
        with pytest.raises(UserError, match=rf"--json .*{name} {sentence}"):
            check(name)
    with pytest.raises(UserError, match="lies in the input"):
        check("folder/new", tmp_path / "folder")
    with pytest.raises(UserError, match="is the input"):
        check("ours", tmp_path / "ours")


def test_the_paths_of_a_config_are_found() -> None:
    config = {
        "model": {"path": "/models/toy", "config": "hub/id", "embeddings": (Path("a"),)},
        "pool": {"captions": ["/ a slash"], "folder": Path("/photos")},
        "seed": 1,
    }
    assert {str(path) for path in paths_in(config)} == {"/models/toy", "a", "/ a slash", "/photos"}


def test_changed_libraries_are_one_warning_that_names_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim_output(tmp_path / "run", "loop")
    claim_output(tmp_path / "run", "loop")
    assert not caplog.text
    monkeypatch.setattr(versions, "version_of", lambda name: f"99.0 of {name}")
    torch = read_json(tmp_path / "run" / MARKER)["versions"]["torch"]
    for _ in range(2):
        caplog.clear()
        claim_output(tmp_path / "run", "loop")
        [record] = caplog.records
        assert f"torch {torch} -> 99.0 of torch" in record.getMessage() and "python" not in record.getMessage()


def test_a_folder_that_leads_elsewhere_is_not_gone_on_in(tmp_path: Path) -> None:
    out = tmp_path / "run"
    claim_output(out, "loop")
    (out / "round_00").symlink_to(tmp_path)
    for check in (claim_output, lambda *place: check_output(*place, replaced=False)):
        with pytest.raises(UserError, match="round_00 is a symbolic link that leads out of the folder"):
            check(out, "loop")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="lock is a symbolic link"):
        claim_output(fresh, "loop")
    assert not (tmp_path / "victim").exists()


def test_a_marker_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MARKER)
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match="did not write"):
        check_output(tmp_path, "label")


def test_an_output_within_another_needs_no_lock_of_its_own(tmp_path: Path) -> None:
    with new_output(tmp_path / "out", "test") as one, new_output(one, "test"), new_output(one / "images", "test"):
        assert {path.name for path in tmp_path.rglob("*.lock")} == {".out.lock"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
