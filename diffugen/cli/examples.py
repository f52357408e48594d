"""The example configs that come with the package, written into a folder of the user's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffugen.errors import UserError
from diffugen.outputs import claim_output
from diffugen.progress import say

PACKAGE = Path(__file__).parents[1]
TRUTH = re.compile(r"runs/(.+)-truth")
"""Where an example's evaluation set is; its scenes are rendered."""


def examples_folder() -> Path:
    """Where the examples are: in an installed package, or in a checkout."""
    installed = PACKAGE / "examples"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def write_example(name: str, folder: Path) -> Path:
    """Write an example's config with what it needs: photos, its JSON schema, a rendered evaluation set.

    Its model is the one that is installed.

    Raises:
        UserError: there is no such example, or its config is there already.
    """
    source = examples_folder()
    known = sorted(path.stem for path in source.glob("*.json"))
    if name not in known:
        raise UserError(f"--example {name!r} is none of the examples: {', '.join(known)}")
    target = folder / f"{name}.json"
    if target.exists():
        raise UserError(f"{target} exists; remove it or give another folder")
    claim_output(folder, "init", option="the folder")
    text = (source / f"{name}.json").read_text(encoding="utf-8")
    text = text.replace('"../diffugen/', f'"{PACKAGE.as_posix()}/').replace('"../', '"')
    values = json.loads(text)
    for relative in (values["$schema"], *_photo_folders(values)):
        if (source / relative).is_dir():
            shutil.copytree(source / relative, folder / relative, dirs_exist_ok=True)
        elif (source / relative).is_file():
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, folder / relative)
    _render_truth(values, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def _photo_folders(values: dict[str, Any]) -> list[str]:
    return [group[name] for group, name in ((values.get("concept"), "photos"), (values.get("pool"), "folder")) if group]


def _render_truth(values: dict[str, Any], folder: Path) -> None:
    """The labelled scenes that a demo is measured on, as `make demo` has them."""
    dataset = values.get("evaluation", {}).get("dataset", "")
    if not (match := TRUTH.fullmatch(dataset)) or (folder / dataset / "data.yaml").is_file():
        return
    classes = ",".join(values["classes"])
    say("rendering 300 labelled scenes to measure on")
    options = ["--num", "300", "--seed", "770000", "--classes", classes, "--rare", match[1]]
    command = [sys.executable, "-m", "diffugen.toyworld.scenes_dataset", "--out", str(folder / dataset), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the evaluation set could not be rendered: {done.stderr.strip().splitlines()[-1]}")
