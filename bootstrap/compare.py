"""`diffugen compare RUN RUN`: what two runs say about themselves, side by side, and the settings that differ."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bootstrap.row import MEASURES, number, read_rows
from bootstrap.run_folder import RunFolder
from bootstrap.verdict import judge_run
from diffugen.errors import UserError

COMPARED = (
    "photos/num",
    "photos/found",
    "photos/score",
    "photos/mask_iou",
    "photos/threshold",
    "negatives/photo/false_positives",
    "negatives/other/false_positives",
    "negatives/generated/false_positives",
    "val/image_agreement",
    "test/mask_map50",
    "test/mask_map50_95",
)
"""Measures of the promoted rounds that are compared, where either run has them."""
_WIDTH = 24


def run_compare(options: argparse.Namespace) -> None:
    """`diffugen compare`."""
    print(comparison(RunFolder(options.first), RunFolder(options.second)))


def comparison(first: RunFolder, second: RunFolder) -> str:
    """Two runs as a table: verdicts, the promoted rounds' measures with what they were measured on, and settings.

    Raises:
        UserError: a folder is no run with a complete round, is damaged, or has a link that leads out of it.
    """
    runs = [_read(run) for run in (first, second)]
    lines = [_line("", *(run.path.name for run in (first, second)))]
    lines.append(_line("verdict", *(judge_run(rows).level for rows, _ in runs)))
    nothing: dict[str, Any] = {"round": "none"}
    best = [next((row for row in reversed(rows) if row["promoted"]), nothing) for rows, _ in runs]
    lines.append(_line("promoted round", *(str(row["round"]) for row in best)))
    for key in COMPARED:
        values = [number(row, key) for row in best]
        if any(value is not None for value in values):
            measure = MEASURES[key]
            text = f"{measure.text} [{measure.evidence}]"
            lines.append(_line(text, *("-" if value is None else f"{value:.3g}" for value in values)))
    kept = [
        f"{sum(row['num_kept'] for row in rows)} of {sum(row['num_generated'] for row in rows)}" for rows, _ in runs
    ]
    lines.append(_line("images kept", *kept))
    minutes = [sum(sum(row.get("seconds", {}).values()) for row in rows) / 60 for rows, _ in runs]
    lines.append(_line("minutes", *(f"{value:.1f}" for value in minutes)))
    lines += [
        f"\n{run.path.name}: {judge_run(rows).text()}" for run, (rows, _) in zip((first, second), runs, strict=True)
    ]
    own = [dict(_flat(config)) for _, config in runs]
    differing = sorted(key for key in own[0].keys() | own[1].keys() if own[0].get(key) != own[1].get(key))
    lines += ["\nsettings that differ:"] if differing else ["\nthe settings are the same"]
    lines += [_line(key, *(json.dumps(values.get(key))[:_WIDTH] for values in own)) for key in differing]
    return "\n".join(lines)


def _read(run: RunFolder) -> tuple[list[Any], Mapping[str, Any]]:
    run.check_contained()
    rows = read_rows(run.metrics) if run.metrics.is_file() else []
    if not rows or not run.config.is_file():
        raise UserError(f"{run.path} is no run with a complete round; give a folder that `diffugen loop` wrote")
    return rows, run.started_with()[0]


def _flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by their dotted keys, but the run's name."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if above or name != "name":
                yield from _flat(inner, f"{above}.{name}" if above else name)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):  # concepts, variations
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{above}.{number}")
    else:
        yield above, value


def _line(text: str, *values: str) -> str:
    return f"{text:<88}" + "".join(f"{value:>{_WIDTH + 2}}" for value in values).rstrip()
