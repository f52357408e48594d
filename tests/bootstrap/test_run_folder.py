"""The run folder: one config, files shared instead of copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.run_folder import RunFolder, derive_seed
from diffugen.config.loader import ConfigPath, Strict
from diffugen.errors import UserError
from diffugen.files import link_file, link_tree, read_json, write_json


class Inner(Strict):
    rate: float = 0.1


class Length(Strict):
    num_rounds: int = 3
    patience: int = 2
    num_images: int = 100


class Settings(Strict):
    seed: int = 0
    photos: ConfigPath = Path("/no/photos")
    inner: Inner = Inner()
    rounds: Length = Length()


def test_a_changed_config_is_refused_once_there_are_results(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    run.resumed(Settings())
    run.write_config(Settings(), weights=weights)
    run.resumed(Settings(seed=1))  # nothing is lost yet
    run.round(0).path.mkdir(parents=True)
    run.resumed(Settings())
    with pytest.raises(UserError, match=r"setting 'inner.rate' changed from 0.1 to 0.2 .*--out"):
        run.resumed(Settings(inner=Inner(rate=0.2)))


class Pool(Strict):
    pasted: int = 0


class WithPool(Settings):
    pool: Pool = Pool()


@pytest.mark.parametrize(("repeats", "goes_on"), [(1, True), (8, False)])
def test_a_run_of_the_version_that_repeated_photos(tmp_path: Path, repeats: int, goes_on: bool) -> None:
    run = RunFolder(tmp_path / "run")
    (tmp_path / "weights").write_bytes(b"1")
    run.write_config(WithPool(), weights=tmp_path / "weights")
    record = read_json(run.config)
    record["config"]["pool"] = {"repeats": repeats}
    write_json(run.config, record)
    run.round(0).path.mkdir(parents=True)
    if goes_on:
        run.resumed(WithPool())
        with pytest.raises(UserError, match=r"'pool.pasted' changed from 0 to 8"):
            run.resumed(WithPool(pool=Pool(pasted=8)))
    else:
        with pytest.raises(UserError, match="started with pool.repeats, which was removed; finish it with the version"):
            run.resumed(WithPool())


def test_a_run_can_be_prolonged_but_not_changed_otherwise(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (tmp_path / "weights").write_bytes(b"1")
    run.write_config(Settings(), weights=tmp_path / "weights")
    run.round(0).path.mkdir(parents=True)
    longer = Settings(rounds=Length(num_rounds=5, patience=3))
    run.resumed(longer)
    (tmp_path / "weights").unlink()  # nothing is recorded anew but the config
    run.write_config(longer, weights=tmp_path / "weights")
    assert read_json(run.config)["config"]["rounds"]["num_rounds"] == 5
    with pytest.raises(UserError, match="setting 'rounds.num_images' changed from 100 to 50"):
        run.resumed(Settings(rounds=Length(num_images=50)))


def test_a_run_resumes_with_inputs_that_were_moved_and_with_no_others(tmp_path: Path) -> None:
    run, photos = RunFolder(tmp_path / "run"), tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"1")
    run.write_config(Settings(photos=photos), weights=photos / "a.png")
    run.round(0).path.mkdir(parents=True)
    before = run.config.read_bytes()
    moved = Settings(photos=photos.rename(tmp_path / "elsewhere"))
    assert run.resumed(moved) == moved
    run.write_config(moved, weights=tmp_path / "gone")
    assert run.config.read_bytes() == before
    run.write_config(Settings(photos=moved.photos, rounds=Length(num_rounds=5)), weights=tmp_path / "gone")
    config = read_json(run.config)["config"]
    assert config["photos"] == str(photos) and config["rounds"]["num_rounds"] == 5
    (moved.photos / "a.png").write_bytes(b"2")
    with pytest.raises(UserError, match="setting 'photos' changed from '.*photos' to '.*elsewhere' since"):
        run.resumed(moved)
    moved.photos.rename(photos)
    with pytest.raises(UserError, match=r"the content of setting 'photos' \(.*photos\) changed since run folder"):
        run.resumed(Settings(photos=photos))


def test_the_record_of_a_run_has_config_seed_versions_and_weights(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (tmp_path / "weights").write_bytes(b"1")
    run.write_config(Settings(seed=7), weights=tmp_path / "weights")
    record = read_json(run.config)
    assert record["config"] == Settings(seed=7).model_dump(mode="json")
    assert record["seed"] == 7
    assert record["versions"]["torch"] and record["versions"]["python"]
    assert len(record["sha256"]["detector.base_weights"]) == 64
    before = run.config.stat()
    run.write_config(Settings(seed=7), weights=tmp_path / "weights")
    assert run.config.stat().st_mtime_ns == before.st_mtime_ns  # a resumed run keeps the first record


def test_seeds_differ_by_purpose_and_never_change() -> None:
    seeds = {derive_seed(0, "image", index, number) for index in range(3) for number in range(100)}
    assert len(seeds) == 300
    assert derive_seed(0, "image", 1, 2) == derive_seed(0, "image", 1, 2) != derive_seed(1, "image", 1, 2)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(0, "prompts", 0) == 1763576461  # else runs of an earlier version could not be repeated


def test_linked_files_share_their_bytes_and_replace_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "source" / "images").mkdir(parents=True)
    image = tmp_path / "source" / "images" / "a.png"
    image.write_bytes(b"pixels")
    (tmp_path / "source" / "labels.cache").write_bytes(b"paths")
    (tmp_path / "target" / "old").mkdir(parents=True)
    link_tree(tmp_path / "source", tmp_path / "target")
    assert sorted(path.name for path in (tmp_path / "target").rglob("*")) == ["a.png", "images"]
    assert (tmp_path / "target" / "images" / "a.png").samefile(image)
    (tmp_path / "best.pt").write_bytes(b"old")
    link_file(image, tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == b"pixels"


def test_complete_rounds_stop_at_the_first_gap(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for index in (0, 2):
        write_json(run.round(index).metrics, {})
    assert [folder.index for folder in run.complete_rounds()] == [0]


def test_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).round(0)
    write_json(folder.seconds, {"label": 100.0})
    with pytest.raises(KeyboardInterrupt), folder.timed("label"):
        raise KeyboardInterrupt
    with folder.timed("compare"):
        pass
    seconds = read_json(folder.seconds)
    assert seconds["label"] >= 100 and set(seconds) == {"label", "compare"}
