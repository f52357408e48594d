"""Exports of Label Studio with anything in any place: they are taken, or refused in one sentence."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootstrap.corrections import read_corrections
from bootstrap.review.__main__ import export_review, import_review
from bootstrap.run_folder import RunFolder
from diffugen.errors import UserError
from diffugen.files import write_json
from diffugen.sample import write_samples

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([[], {}, [[]], "", "0-0", 10**400, 1e308, -1, "polygonlabels", ["piano"], {"text": None}]),
    st.recursive(st.none() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[dict[str, Any]]]:
    """A run of three samples, and an export of it that nobody has changed."""
    from round_samples import doubtful, make_generated, make_instances

    run = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    samples = []
    for number, class_ids in enumerate([[0], [0, 1], [1]]):
        generated = make_generated(run.round(0).path, number, class_ids)
        samples.append(
            doubtful(generated.__class__(**{**vars(generated), "encoded": make_instances(class_ids).to_json()}))
        )
    write_samples(run.round(0).samples, samples)
    write_json(run.round(0).metrics, {"promoted": True})
    write_json(run.config, {"config": {"classes": ["piano", "car"]}})
    export_review(run, run.path.parent / "tasks.json")
    tasks = json.loads((run.path.parent / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        result = task.pop("predictions")[0]["result"]
        arrow = {"type": "relation", "from_id": "0-0", "to_id": "0-0", "direction": "right"}
        done = {"id": 5, "result": [*result, arrow], "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z"}
        task |= {"id": number, "annotations": [done], "drafts": [], "meta": {}}
    return run, tasks


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def parent_of(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def replaced(tasks: Any, path: tuple[Any, ...], odd: Any) -> None:
    parent_of(tasks, path)[path[-1]] = odd


def removed(tasks: Any, path: tuple[Any, ...], odd: Any) -> None:
    del parent_of(tasks, path)[path[-1]]


def doubled(tasks: Any, path: tuple[Any, ...], odd: Any) -> None:
    parent = parent_of(tasks, path)
    if isinstance(parent, list):
        parent.append(copy.deepcopy(parent[path[-1]]))
    else:
        parent[str(odd)] = copy.deepcopy(parent[path[-1]])


CHANGES: tuple[Callable[[Any, tuple[Any, ...], Any], None], ...] = (replaced, removed, doubled)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_an_export_is_taken_or_refused(data: st.DataObject, reviewed: tuple[RunFolder, list], tmp_path: Path) -> None:
    run, tasks = reviewed
    tasks = copy.deepcopy(tasks)
    for _ in range(data.draw(st.integers(1, 3))):
        where = list(places(tasks))
        if where:
            change = data.draw(st.sampled_from(CHANGES))
            change(tasks, data.draw(st.sampled_from(where)), data.draw(ODD))
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    run.corrections.unlink(missing_ok=True)
    try:
        import_review(run, tmp_path / "export.json")
    except UserError as error:
        assert len(str(error)) < 1000 and "\n" not in str(error).strip()
        assert not run.corrections.exists()
    else:
        read_corrections(run)


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused(content: bytes, reviewed: tuple[RunFolder, list], tmp_path: Path) -> None:
    (tmp_path / "export.json").write_bytes(content)
    with contextlib.suppress(UserError):
        assert import_review(reviewed[0], tmp_path / "export.json") == 0  # an empty list
