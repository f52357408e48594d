"""`report.html`: one self-contained page about a run, which opens offline and asks nothing of any server."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from bootstrap.config import LoopConfig
from bootstrap.samples import SampleRecord, read_samples
from bootstrap.state import RoundFolder, RunFolder
from diffugen.config import ConfigError
from diffugen.files import read_json, read_jsonl, write_text
from diffugen.images import PALETTE, list_images, read_image
from diffugen.instances import Instances

logger = logging.getLogger(__name__)

THUMBNAIL = 176
"""Longest side of a picture, pixels."""
NUM_PER_ROUND = 36
"""Most pictures per round, two thirds of them kept ones where there are enough of both."""


@dataclass(frozen=True)
class Curve:
    """A line chart over the rounds: one polyline per series, y from 0 to 1."""

    title: str
    series: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Card:
    """One sample as the page shows it; images are data URIs."""

    name: str
    outcome: str
    reason: str
    prompt: str
    agreement: float | None
    overlay: str
    heat: str


def write_report(run: RunFolder, config: LoopConfig, *, photos: Sequence[Path] = ()) -> Path:
    """Write the run's `report.html` from the files in its folder.

    Args:
        run: a run folder with at least one complete round.
        config: the run's settings.
        photos: folders of the concepts' photos, if there are any.
    """
    rows = read_jsonl(run.metrics)
    templates = PackageLoader("bootstrap", "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.j2").render(
        name=config.name,
        config=read_json(run.config),
        rare_classes=config.rare_classes,
        legend=[(name, "rgb({},{},{})".format(*_colour(index))) for index, name in enumerate(config.classes)],
        rows=rows,
        best=next((row for row in reversed(rows) if row["promoted"]), None),
        metrics=_metric_columns(rows),
        charts=[_draw(curve) for curve in _curves(rows, config.rare_classes)],
        photos=[photo for folder in photos for photo in _photos(folder)],
        concept=[_data_uri(path) for name in ("samples.png", "loss.png") for path in sorted(run.concept.rglob(name))],
        rounds=[(folder.index, _cards(folder)) for folder in run.complete_rounds()],
    )
    write_text(run.report, page)
    return run.report


def overlay(image: np.ndarray, instances: Instances) -> np.ndarray:
    """Instances drawn over a uint8 RGB [H, W, 3] image: tinted masks with outlines, a colour per class."""
    canvas = image.copy()
    for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
        colour = np.array(_colour(int(class_id)))
        canvas[mask] = (0.6 * canvas[mask] + 0.4 * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, [int(part) for part in colour], 1)
    return canvas


def heat_overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A heatmap [h, w] over a uint8 RGB [H, W, 3] image, brightest where it is highest."""
    height, width = image.shape[:2]
    heat = cv2.resize(values / max(float(values.max()), 1e-12), (width, height), interpolation=cv2.INTER_CUBIC)
    colours = cv2.applyColorMap((heat.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return (0.35 * image + 0.65 * colours).astype(np.uint8)


def _cards(folder: RoundFolder) -> list[Card]:
    samples = read_samples(folder)
    kept = [sample for sample in samples if sample.kept]
    others = [sample for sample in samples if not sample.kept]
    num_others = min(len(others), max(NUM_PER_ROUND // 3, NUM_PER_ROUND - len(kept)))
    return [_card(sample) for sample in [*kept[: NUM_PER_ROUND - num_others], *others[:num_others]]]


def _card(sample: SampleRecord) -> Card:
    image = sample.source.image()
    # All phrases in one picture: where any of them is attended, each scaled to its own peak.
    heat = max_heat([heatmap.values for heatmap in sample.source.heatmaps()])
    # A rejected sample has labels that were thrown away for a reason; show them all.
    shown = sample.instances if sample.kept else sample.labels(sample.labeler)
    return Card(
        name=sample.name,
        outcome=sample.outcome,
        reason=sample.reason,
        prompt=sample.source.prompt.text,
        agreement=sample.agreement,
        overlay=_jpeg(overlay(image, shown)),
        heat=_jpeg(heat_overlay(image, heat)) if heat is not None else "",
    )


def max_heat(maps: Sequence[np.ndarray]) -> np.ndarray | None:
    """The maximum over heatmaps [h, w] of each one's share of its own peak; None if there are none."""
    shares = [values / max(float(values.max()), 1e-12) for values in maps]
    return np.max(shares, axis=0) if shares else None


def _photos(folder: Path) -> list[str]:
    try:
        return [_jpeg(read_image(path)) for path in list_images(folder)]
    except ConfigError as error:  # the photos were there when the concept was learned; the report can do without
        logger.warning("the report shows no photos: %s", error)
        return []


def _metric_columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The number columns of the table, in the order in which they first appear."""
    prefixes = ("val/mean/mask", "val/mask", "test/mask", "test/box")
    wanted = (
        "label_agreement",
        *(f"{prefix}_{metric}" for prefix in prefixes for metric in ("map50", "map50_95")),
    )
    return [name for name in wanted if any(name in row for row in rows)]


def _curves(rows: Sequence[dict[str, Any]], rare_classes: Sequence[str]) -> list[Curve]:
    rare = " and ".join(rare_classes)
    curves = [
        Curve(f"{rare}: mask mAP on the evaluation set", _map_points(rows, "test")),
        Curve("all classes: mask mAP on the validation split", _map_points(rows, "val/mean")),
        Curve("agreement of attention and detector (mean IoU)", {"agreement": _points(rows, "label_agreement")}),
    ]
    kept = [(row["round"], row["num_kept"] / max(row["num_generated"], 1)) for row in rows]
    curves.append(Curve("share of images kept", {"kept": kept}))
    return [curve for curve in curves if any(curve.series.values())]


def _map_points(rows: Sequence[dict[str, Any]], prefix: str) -> dict[str, list[tuple[int, float]]]:
    return {
        "mAP50": _points(rows, f"{prefix}/mask_map50"),
        "mAP50-95": _points(rows, f"{prefix}/mask_map50_95"),
    }


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(row["round"], row[key]) for row in rows if row.get(key) is not None]


def _draw(curve: Curve, width: int = 320, height: int = 170) -> dict[str, Any]:
    """A curve as SVG coordinates: grid lines, and per series its points with their values."""
    left, right, top, bottom = 34, 12, 12, 24
    last = max((index for points in curve.series.values() for index, _ in points), default=0)

    def place(index: int, value: float) -> tuple[float, float]:
        x = left + (width - left - right) * (index / last if last else 0.5)
        return round(x, 1), round(top + (height - top - bottom) * (1 - min(max(value, 0.0), 1.0)), 1)

    series = [
        {
            "name": name,
            "colour": f"var(--line{number})",
            "points": [(*place(*point), point[1]) for point in points],
        }
        for number, (name, points) in enumerate(curve.series.items())
        if points
    ]
    return {
        "title": curve.title,
        "width": width,
        "height": height,
        "left": left,
        "right": width - right,
        "grid": [(value, place(0, value)[1]) for value in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "ticks": [(index, place(index, 0)[0]) for index in range(last + 1)],
        "series": series,
    }


def _colour(class_id: int) -> tuple[int, int, int]:
    return PALETTE[class_id % len(PALETTE)]


def _jpeg(image: np.ndarray, side: int = THUMBNAIL) -> str:
    """A uint8 RGB image as the data URI of a JPEG thumbnail."""
    scale = side / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
