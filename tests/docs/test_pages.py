"""README and docs name only what exists: files, settings, commands, messages and links."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command_reference import command_parser
from config_reference import schemas

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(path for path in ROOT.glob("*.md") if path.stem != "CHANGELOG")])
CURRENT = [path for path in PAGES if path.stem != "log"]
"""Pages about the project as it is; the log tells of earlier times."""

PACKAGES = ("bootstrap", "diffugen", "textual_inversion")
PATH = re.compile(r"(?<![\w./-])(?:docs|configs|benchmarks|tests|bootstrap|diffugen|textual_inversion)/[\w./*-]*\w")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
MAX_WORDS = 1000
MAX_PICTURES = 600_000


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands_of(path: Path) -> Iterator[list[str]]:
    """The commands in a page's shell blocks, as argument lists."""
    for language, body in FENCE.findall(text_of(path)):
        if language in ("sh", "bash"):
            for line in body.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


@cache
def settings() -> frozenset[str]:
    """Every setting of every kind of config, with its dotted key."""
    found: set[str] = set()
    for schema in schemas().values():
        found |= set(_keys(schema, schema.get("$defs", {}), ""))
    return frozenset(found)


def _keys(value: Any, defs: dict[str, Any], prefix: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _keys(item, defs, prefix)
    if not isinstance(value, dict):
        return
    if "$ref" in value:
        yield from _keys(defs[value["$ref"].rpartition("/")[2]], defs, prefix)
    for key, setting in value.get("properties", {}).items():
        yield f"{prefix}{key}"
        yield from _keys(setting, defs, f"{prefix}{key}.")
    for group in ("anyOf", "oneOf", "allOf", "items", "additionalProperties"):
        yield from _keys(value.get(group), defs, prefix)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_exist(page: Path) -> None:
    missing = [path for path in PATH.findall(text_of(page)) if not list(ROOT.glob(path))]
    assert not missing


def test_code_names_pages_that_exist() -> None:
    sources = [path for package in (*PACKAGES, "benchmarks") for path in (ROOT / package).rglob("*.py")]
    named = {page for path in sources for page in re.findall(r"docs/[\w-]+\.md", text_of(path))}
    assert named and not [page for page in named if not (ROOT / page).is_file()]


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_settings_exist(page: Path) -> None:
    groups = {key.partition(".")[0] for key in settings() if "." in key}
    text = FENCE.sub("", text_of(page))
    named = {found for code in CODE.findall(text) for found in re.findall(r"^([a-z_]+(?:\.[a-z_]+)+)(?=$|[=:])", code)}
    named |= {setting for words in commands_of(page) for setting in overridden(words)}
    missing = [key for key in named if key.partition(".")[0] in groups and key not in settings()]
    assert not missing


def overridden(words: list[str]) -> Iterator[str]:
    """The settings that a command line changes."""
    follows = False
    for word in words:
        follows = word == "--set" or (follows and not word.startswith("-"))
        if follows and "=" in word:
            yield word.partition("=")[0]


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_commands_parse(page: Path) -> None:
    parser = command_parser()
    for words in commands_of(page):
        if words[0] == "diffugen":
            parses(parser, words[1:])
        elif words[0] == "python":
            script = script_of(words[1:])
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert not [option for option in options if f'"{option}"' not in script], words


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_commands_in_sentences_have_these_options(page: Path) -> None:
    commands = command_parser().commands
    for code in CODE.findall(FENCE.sub("", text_of(page))):
        program, _, rest = code.partition(" ")
        if program == "diffugen" and rest:
            words = shlex.split(rest)
            known = (
                commands[words[0]]._option_string_actions if words[0] in commands else {"--version": ..., "--help": ...}
            )
            assert words[0] in known or words[0] in commands or words[0] == "COMMAND", code
            assert not [word for word in words[1:] if word.startswith("--") and word not in known], code


def script_of(words: list[str]) -> str:
    """The text of the module or file that Python is to run; of a library's none but that it is there."""
    if words[0] != "-m":
        return text_of(ROOT / words[0])
    spec = importlib.util.find_spec(words[1])
    assert spec is not None and spec.origin is not None, words
    path = Path(spec.origin)
    path = path.with_name("__main__.py") if path.name == "__init__.py" else path
    return text_of(path) if path.is_relative_to(ROOT) else " ".join(f'"{word}"' for word in words)


def parses(parser: argparse.ArgumentParser, words: list[str]) -> None:
    try:
        parser.parse_args(words)
    except SystemExit as stop:
        assert not stop.code, f"diffugen {shlex.join(words)}"


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_python_imports_what_there_is(page: Path) -> None:
    for language, body in FENCE.findall(text_of(page)):
        for node in ast.walk(ast.parse(body)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_json_is_valid(page: Path) -> None:
    for language, body in FENCE.findall(text_of(page)):
        if language == "json":
            json.loads(body if body.lstrip().startswith("{") else f"{{{body}}}")


def test_messages_are_those_of_the_code() -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts = "\n".join(
        node.value
        for path in [*sources, ROOT / "train_loop.py"]
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    rows = re.findall(r"^\| `([^`]+)`", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    assert len(rows) > 20
    assert not [message for message in rows if message not in texts]


def test_architecture_names_every_folder() -> None:
    tree = re.findall(r"^ *([a-z_]+)/", text_of(ROOT / "docs" / "architecture.md"), re.MULTILINE)
    folders = {init.parent.name for package in PACKAGES for init in (ROOT / package).rglob("__init__.py")}
    assert folders and not folders - set(tree)


def test_readme_is_short_and_pictures_are_small() -> None:
    assert len(text_of(ROOT / "README.md").split()) <= MAX_WORDS
    pictures = list((ROOT / "docs" / "img").iterdir())
    assert pictures and sum(path.stat().st_size for path in pictures) <= MAX_PICTURES


@pytest.mark.parametrize("page", [path for path in PAGES if path.parent == ROOT], ids=name)
def test_links_of_pages_outside_the_site_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", text_of(page))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed")
def test_the_site_builds_strictly_with_its_tables_and_fetches_nothing(tmp_path: Path) -> None:
    """Seconds long, as it renders every page: a broken link, anchor or generated page fails it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (path for path in PAGES if path.parent == ROOT / "docs"):
        written = re.findall(r"^\s*\|(?:-+\|)+$", FENCE.sub("", text_of(page)), re.MULTILINE)
        assert text_of(tmp_path / f"{page.stem}.html").count("<table>") == len(written), page.name
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(https?:[^\"]+)", text_of(page))
        assert not fetched, page.name
