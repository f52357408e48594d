"""The wheel alone gives everything: the commands, `train_loop`, the examples and the toy world's weights."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"diffugen", "bootstrap", "textual_inversion", "train_loop.py"}


def run(command: list[str | Path], cwd: Path) -> str:
    """What a command prints; it sees none of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The programs of a fresh environment with the wheel, by name; the libraries are those of the tests."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
    python = bin_folder / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], environment).strip())
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files do not count
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, wheel], environment)
    return lambda name: bin_folder / name


def test_the_wheel_has_our_packages_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]
    assert {"diffugen/examples/demo.json", "diffugen/toyworld/weights/detector.safetensors"} <= set(names)


def test_the_demo_starts_from_an_empty_folder(installed: Callable[[str], Path], tmp_path: Path) -> None:
    """Seconds long: the evaluation set is rendered and the libraries are imported, as for a user."""
    where = run([installed("python"), "-c", "import train_loop; print(train_loop.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed("python").parents[1])
    said = run([installed("diffugen"), "init", "--example", "demo", "mine"], tmp_path)
    assert "next:   diffugen loop mine/demo.json" in said
    said = run([installed("diffugen"), "loop", "mine/demo.json", "--dry-run"], tmp_path)
    assert f"run folder: {tmp_path.resolve() / 'runs' / 'demo'} (new)" in said and "time: about " in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
