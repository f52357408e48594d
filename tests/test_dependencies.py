"""Who may know whom: train_loop -> bootstrap -> diffugen, and train_loop -> textual_inversion -> diffugen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("diffugen", "bootstrap", "textual_inversion", "train_loop")
MAY_KNOW = {
    "diffugen": {"diffugen"},
    "bootstrap": {"bootstrap", "diffugen"},
    "textual_inversion": {"textual_inversion", "diffugen"},
    "train_loop": set(OURS),
}


FLOORS = (
    "errors instances batching progress naming versions",
    "files",
    "checksums contained lock registered model_files decoding devices",
    "config outputs masks",
    "images class_maps command_line prompts",
    "executor",
    "sample drawing",
    "diffusion datasets detector",
    "attention evaluation",
    "labelers toyworld",
    "generation",
    "cli",
)
"""The rooms of diffugen from the ground up: a room imports itself and rooms of lower floors only."""


def modules_of(package: str) -> list[Path]:
    single = ROOT / f"{package}.py"
    return [single] if single.is_file() else sorted((ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, inside functions too; relative ones made absolute."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("package", OURS)
def test_dependencies_run_one_way(package: str) -> None:
    modules = modules_of(package)
    assert modules, f"no modules in {package}"
    known = {name.split(".")[0] for path in modules for name in imports_of(path)}
    assert known & set(OURS) <= MAY_KNOW[package]


def all_modules() -> list[Path]:
    return [path for package in OURS for path in modules_of(package)]


def test_only_the_detector_touches_ultralytics() -> None:
    users = {path for path in all_modules() if any(is_within(name, "ultralytics") for name in imports_of(path))}
    assert users and all(path.is_relative_to(ROOT / "diffugen" / "detector") for path in users)


def test_nothing_outside_the_toy_world_imports_it() -> None:
    toyworld = ROOT / "diffugen" / "toyworld"
    users = [path for path in all_modules() if any(is_within(name, "diffugen.toyworld") for name in imports_of(path))]
    assert users, "the toy world's own modules should show up here"
    assert all(path.is_relative_to(toyworld) for path in users)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "diffugen").with_suffix("").parts[0]


def test_every_room_of_diffugen_has_a_floor() -> None:
    rooms = {room_of(path) for path in modules_of("diffugen")} - {"__init__", "__main__"}
    assert rooms == {room for floor in FLOORS for room in floor.split()}


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_rooms_import_downwards(floor: int) -> None:
    below = {room for lower in FLOORS[:floor] for room in lower.split()}
    for room in FLOORS[floor].split():
        modules = [path for path in modules_of("diffugen") if room_of(path) == room]
        names = {name for path in modules for name in imports_of(path) if is_within(name, "diffugen")}
        upwards = {name for name in names if name.split(".")[1] not in below | {room}}
        assert modules and not upwards, f"{room} imports {sorted(upwards)}"


def test_relative_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "diffugen" / "formats" / "x.py"
    module.parent.mkdir(parents=True)
    module.write_text("from . import a\nfrom ..toyworld import b\nimport c.d\ndef f():\n    from e import g\n")
    assert set(imports_of(module)) == {"diffugen.formats.a", "diffugen.toyworld.b", "c.d", "e.g"}
