"""The curves of a report: which ones there are, and where their points lie in an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bootstrap.row import Row, number

WIDTH, HEIGHT = 320, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 40, 14, 24


@dataclass(frozen=True)
class Curve:
    """A line chart: one polyline per series, y from 0 to `top`; x are rounds, or from 0 to `right`.

    Attributes:
        mark: an x that is marked.
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    top: float = 1.0
    right: float | None = None
    mark: float | None = None


def curves(rows: Sequence[Row], rare_classes: Sequence[str]) -> list[Curve]:
    """The curves of a run that have any points."""
    rare = " and ".join(rare_classes)
    kept = [(row["round"], row["num_kept"] / max(row["num_generated"], 1)) for row in rows]
    drawn = [
        Curve(f"{rare}: mask mAP on the evaluation set", _map_points(rows, "test")),
        Curve("all classes: mask mAP on the validation split", _map_points(rows, "val/mean")),
        Curve(
            "labels against the truth (mean IoU)",
            {name: _points(rows, f"test/labels/{name}/mean_iou") for name in ("detector", "attention")},
        ),
        Curve(
            "agreement of labelers (mean IoU)",
            {
                "labels of the round": _points(rows, "label_agreement"),
                "new detector": _points(rows, "val/label_agreement"),
            },
        ),
        Curve(
            "share of images",
            {"kept": kept, "near-duplicates": _points(rows, "images/near_duplicate_fraction")},
        ),
        _scaled(
            "different images (Vendi score)", rows, {"all": "images/vendi_score", "kept": "images/kept/vendi_score"}
        ),
    ]
    return [curve for curve in drawn if any(curve.series.values())]


def _scaled(title: str, rows: Sequence[Row], keys: dict[str, str]) -> Curve:
    """A curve whose axis ends at a round number above its highest point."""
    series = {name: _points(rows, key) for name, key in keys.items()}
    highest = max((value for points in series.values() for _, value in points), default=1.0)
    top = next(step for step in (1, 2, 4, 8, 12, 20, 40, 80, 120, 200, 400, 800, 10**6) if step >= highest)
    return Curve(title, series, float(top))


def _map_points(rows: Sequence[Row], prefix: str) -> dict[str, list[tuple[float, float]]]:
    return {
        "mAP50": _points(rows, f"{prefix}/mask_map50"),
        "mAP50-95": _points(rows, f"{prefix}/mask_map50_95"),
    }


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["round"], value) for row in rows if (value := number(row, key)) is not None]


def draw(curve: Curve) -> dict[str, Any]:
    """A curve as SVG coordinates: grid lines, ticks, and per series its points with their values."""
    last = curve.right or max((index for points in curve.series.values() for index, _ in points), default=0)
    steps = range(0, int(last) + 1, -(-int(last + 1) // 12))

    def place(index: float, value: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * (index / last if last else 0.5)
        share = min(max(value / curve.top, 0.0), 1.0)
        return round(x, 1), round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - share), 1)

    series = [
        {"name": name, "line": number, "points": [(*place(*point), point[1]) for point in points]}
        for number, (name, points) in enumerate(curve.series.items())
        if points
    ]
    return {
        "title": curve.title,
        "width": WIDTH,
        "height": HEIGHT,
        "left": _LEFT,
        "right": WIDTH - _RIGHT,
        "decimals": 2 if curve.top <= 1 else 1,
        "grid": [(f"{share * curve.top:g}", place(0, share * curve.top)[1]) for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "ticks": [(f"{x:g}", place(x, 0)[0]) for x in (steps if curve.right is None else np.linspace(0, last, 5))],
        "mark": None if curve.mark is None else (f"{curve.mark:.2f}", place(curve.mark, 0)[0]),
        "series": series,
        "ends": _ends(series),
    }


def _ends(series: Sequence[dict[str, Any]], gap: float = 11.0) -> list[dict[str, Any]]:
    """Where the last value of each series is written: beside its point, and apart from the others."""
    ends: list[dict[str, Any]] = []
    for line in sorted(series, key=lambda line: line["points"][-1][1]):
        x, y, value = line["points"][-1]
        above = ends[-1]["y"] if ends else float("-inf")
        ends.append({"x": x + 7, "y": max(y + 3, above + gap), "value": value, "line": line["line"]})
    return ends
