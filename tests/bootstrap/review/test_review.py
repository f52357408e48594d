"""Review: doubtful samples go out, corrected ones come back into the next round."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from round_samples import doubtful, make_instances

from bootstrap.corrections import latest_samples, with_corrections
from bootstrap.review.__main__ import export_review, import_review, main
from bootstrap.run_folder import RunFolder
from diffugen.errors import UserError
from diffugen.files import read_json, read_jsonl, write_json, write_jsonl
from diffugen.sample import read_samples, write_samples


@pytest.fixture
def run(tmp_path: Path, make_samples: Callable) -> RunFolder:
    """A run of one round: kept, put aside for review, rejected."""
    run = RunFolder(tmp_path / "run")
    samples = make_samples(run.round(0).path, [[0], [0, 1], [1]], {1: "low_iou:piano", 2: "too_few:car"})
    samples[1] = doubtful(samples[1])
    write_samples(run.round(0).samples, samples)
    write_json(run.round(0).metrics, {"promoted": True})
    write_json(run.config, {"config": {"classes": ["piano", "car"]}})
    return run


def corrected(tasks: Path) -> Path:
    """The export of somebody who removed the last region of every task."""
    values = json.loads(tasks.read_text())
    for task in values:
        task["annotations"] = [{"result": task["predictions"][0]["result"][:-1]}]
    out = tasks.with_name("export.json")
    out.write_text(json.dumps(values))
    return out


def test_tasks_are_json(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tasks.xml", "tasks", "tasks.csv"):
        assert main(["export", str(run.path), "--out", str(tmp_path / name)]) == 2
        assert f"{name} must end in .json" in capsys.readouterr().err
    assert not list(tmp_path.glob("tasks*"))


def test_review_goes_out_and_corrections_come_back(run: RunFolder, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    assert main(["export", str(run.path), "--out", str(tasks)]) == 0
    assert [task["data"]["name"] for task in json.loads(tasks.read_text())] == ["r00_000001"]
    assert tasks.with_suffix(".xml").is_file()
    before = run.round(0).samples.read_bytes()
    assert main(["import", str(run.path), str(corrected(tasks))]) == 0
    assert run.round(0).samples.read_bytes() == before
    samples = with_corrections(read_samples(run.round(0).samples), read_json(run.corrections))
    assert [(sample.labeler, sample.outcome, sample.class_ids) for sample in samples] == [
        ("attention", "keep", [0]),
        ("person", "keep", [0]),
        ("attention", "reject", [1]),
    ]


def test_other_outcomes_can_be_looked_at_as_well(run: RunFolder, tmp_path: Path) -> None:
    assert export_review(run, tmp_path / "tasks.json", ["review", "reject"]) == 2


def test_a_run_without_doubtful_images_says_what_else_can_be_exported(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bootstrap.review.__main__.latest_samples", lambda *_: [])
    assert main(["export", str(run.path), "--out", str(tmp_path / "tasks.json")]) == 0
    said = (
        "0 tasks: no image of the run has the outcome review; --outcome reject or --outcome keep exports other images\n"
    )
    assert capsys.readouterr().out == said


def test_what_has_been_decided_since_is_not_offered_again(run: RunFolder, tmp_path: Path) -> None:
    """A later round keeps the doubtful one and doubts the rejected one."""
    own = read_samples(run.round(0).samples)
    judged = [replace(own[1], reason="", split="train"), doubtful(own[2], own[2].reason)]
    write_jsonl(run.round(1).relabelled(0), (sample.to_json() for sample in judged))
    write_samples(run.round(1).samples, [])
    write_json(run.round(1).metrics, {"promoted": True})
    tasks = tmp_path / "tasks.json"
    assert export_review(run, tasks) == 1
    assert [task["data"]["name"] for task in json.loads(tasks.read_text())] == [own[2].name]
    import_review(run, corrected(tasks))
    assert export_review(run, tasks) == 0


def test_a_photo_goes_out_once_with_the_last_rounds_labels(
    run: RunFolder, tmp_path: Path, make_samples: Callable
) -> None:
    """Every round labels it anew: reject, review, keep; and the person's word stands against all of them."""
    outcomes = {1: "review", 2: "keep", 3: "review"}
    for index, outcome in outcomes.items():
        (drawn,) = make_samples(run.round(index).path, [[0, 1]])
        image = drawn.image_path.rename(drawn.image_path.with_name("photo_0000.png"))
        photo = replace(drawn, name=f"r0{index}_photo_0000", image=image, task="photo")
        photo = doubtful(photo) if outcome == "review" else photo
        write_samples(run.round(index).samples, [photo])

    def offered(num_rounds: int) -> list[str]:
        write_json(run.round(num_rounds - 1).metrics, {"promoted": True})
        export_review(run, tmp_path / "tasks.json")
        names = [task["data"]["name"] for task in json.loads((tmp_path / "tasks.json").read_text())]
        return [name for name in names if "photo" in name]

    assert offered(2) == ["r01_photo_0000"]
    first = corrected(tmp_path / "tasks.json")
    assert offered(3) == []
    assert offered(4) == ["r03_photo_0000"]
    assert import_review(run, first) == 2  # the doubtful image of round 0 is in the file as well
    assert offered(4) == []
    assert [sample.class_ids for sample in latest_samples(run, read_json(run.corrections)) if sample.is_photo] == [[0]]


def test_images_go_out_under_the_names_of_their_samples(run: RunFolder, tmp_path: Path) -> None:
    (sample,) = [sample for sample in read_samples(run.round(0).samples) if sample.outcome == "review"]
    for embed in (False, True):
        export_review(run, tmp_path / "tasks.json", embed_images=embed)
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        assert task["data"]["image"].startswith("data:image/png" if embed else "/data/local-files/?d=tasks_images/")
    images = tmp_path / "tasks_images"
    assert [path.name for path in images.glob("[!.]*")] == [f"{sample.name}.png"]
    assert (images / f"{sample.name}.png").read_bytes() == sample.image_path.read_bytes()


def test_the_validation_split_stays_frozen(run: RunFolder) -> None:
    samples = [replace(sample, split="val") for sample in read_samples(run.round(0).samples)]
    corrections = {sample.name: make_instances([1]).to_json() for sample in samples}
    assert with_corrections(samples, corrections) == samples


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "no JSON export"),
        ("", "no JSON export"),
        ("[" * 100_000, "no JSON export"),
        ("{}", "choose the format JSON"),
        ('[{"data": {"name": "r07_1"}}]', "from the same run"),
        ('[{"data": null}]', "from the same run"),
        ('[{"data": {"name": ["r00_000000"]}}]', "from the same run"),
        ('[{"data": {"name": "r00_000000"}, "annotations": {}}]', "annotations that are no list"),
    ],
)
def test_a_wrong_file_is_one_sentence(run: RunFolder, tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        import_review(run, tmp_path / "export.json")
    assert not run.corrections.exists()


def test_one_bad_task_takes_nothing(run: RunFolder, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    export_review(run, tasks, ["keep", "review"])
    values = json.loads(corrected(tasks).read_text())
    values[1]["annotations"][0]["result"] = [{"type": "brushlabels"}]
    (tmp_path / "export.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="draw polygons only"):
        import_review(run, tmp_path / "export.json")
    assert not run.corrections.exists()
    values[1] = values[0]
    (tmp_path / "export.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="two annotated tasks of r00_000000"):
        import_review(run, tmp_path / "export.json")


def test_corrections_of_the_frozen_split_are_told(
    run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = [replace(sample, split="val") if sample.kept else sample for sample in read_samples(run.round(0).samples)]
    write_samples(run.round(0).samples, samples)
    export_review(run, tmp_path / "tasks.json", ["keep"])
    assert import_review(run, corrected(tmp_path / "tasks.json")) == 1
    assert "validation split, which stays as it is (first: r00_000000)" in caplog.text


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        export_review(RunFolder(tmp_path), tmp_path / "tasks.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": "{secret}"}, "line 1: .* is no file in"),
        ({"image": "../../secret.png"}, "line 1: .* is no file in"),
        ({"heatmaps": "/etc/passwd"}, "line 1: .* is no file in"),
        ({"image": 3}, "line 1: 3 is no file"),
        ({"name": "../r00_000000"}, "is no name of a sample"),
        ({"name": None}, "is no name of a sample"),
        ({"prompt": {}}, "line 1: .* is missing"),
        ({"instances": {"size_hw": [48, 64], "class_ids": [0], "scores": [1], "masks": ["~"]}}, "labels of sample"),
        (
            {"instances": {"size_hw": [10**6, 10**6], "class_ids": [0], "scores": [1], "masks": ["0"]}},
            "labels of sample",
        ),
        ({"instances": None}, "line 1: no labels"),
    ],
)
def test_a_strangers_run_reads_nothing_outside(run: RunFolder, tmp_path: Path, change: dict, sentence: str) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    lines = read_jsonl(run.round(0).samples)
    lines[0] |= {key: value.format(secret=secret) if isinstance(value, str) else value for key, value in change.items()}
    write_jsonl(run.round(0).samples, lines)
    with pytest.raises(UserError, match=sentence):
        export_review(run, tmp_path / "tasks.json", ["keep"])
    assert not (tmp_path / "tasks.json").exists()


@pytest.mark.parametrize("place", ["round_00/images/000000.png", "round_00/images", "round_00", "concept"])
def test_links_lead_nowhere_outside(run: RunFolder, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    if (run.path / place).exists():
        (run.path / place).rename(outside)
    (run.path / place).symlink_to(outside)
    for step in (lambda: export_review(run, tmp_path / "t.json", ["keep"]), lambda: import_review(run, tmp_path / "e")):
        with pytest.raises(UserError, match="symbolic link that leads out of the run folder"):
            step()


def test_links_within_a_run_are_followed(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "round_00" / "images").rename(run.path / "pictures")
    (run.path / "round_00" / "images").symlink_to(Path("..") / "pictures")
    assert export_review(run, tmp_path / "tasks.json") == 1


@pytest.mark.parametrize("content", ["", "[]", '{"r00_000000": {}}', '{"r00_000000": null}', "{"])
def test_damaged_corrections_are_named(run: RunFolder, tmp_path: Path, content: str) -> None:
    run.corrections.write_text(content)
    with pytest.raises(UserError, match=r"corrections\.json is damaged"):
        export_review(run, tmp_path / "tasks.json")
