"""`report.html`: one self-contained page about a run, which opens offline and asks nothing of any server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined

from bootstrap.config import LoopConfig
from bootstrap.evidence import Evidence
from bootstrap.measures.balance import discriminated
from bootstrap.report.charts import curves, draw
from bootstrap.report.evidence import NO_EVIDENCE, photo_cards, threshold_curve
from bootstrap.report.pictures import NO_VALUE, Card, gallery, photo_uris, sheet_uri
from bootstrap.report.words import in_words, with_code
from bootstrap.row import (
    CONFUSION,
    IMAGE_MEASURES,
    LABEL_MEASURES,
    MEASURES,
    PHOTO_MEASURES,
    SCORES,
    Row,
    number,
    read_rows,
    scores_by_attribute,
)
from bootstrap.run_folder import RunFolder, promoted_round
from bootstrap.verdict import RunVerdict, judge_run
from diffugen.drawing import class_colour
from diffugen.files import read_json, write_text
from diffugen.sample import iter_samples


def write_report(
    run: RunFolder,
    config: LoopConfig,
    *,
    photos: Sequence[Path] = (),
    drawn: Sequence[str] = (),
    problems: Sequence[str] = (),
    verdict: RunVerdict | None = None,
    status: str = "",
) -> Path:
    """Write the run's `report.html` from the files in its folder.

    Args:
        run: the run folder.
        config: the run's settings.
        photos: folders of the concepts' photos, if there are any.
        drawn: how much of their photos the concepts draw, a sentence each.
        problems: what went wrong without stopping the run, a sentence each.
        verdict: on a run that ended before its first round; otherwise it follows from the rounds.
        status: what the run is doing; the page then reloads itself. Empty where it has ended.
    """
    rows = read_rows(run.metrics) if run.metrics.is_file() else []
    best_folder = promoted_round(run)
    evidence = NO_EVIDENCE if best_folder is None else Evidence.read(best_folder.evidence)
    complete = run.complete_rounds()
    later_first = sorted(complete, key=lambda folder: (folder != best_folder, -folder.index))
    begun = run.round(len(complete))
    is_labelled = bool(status) and begun.samples.is_file()
    outcomes = Counter(sample.outcome for sample in iter_samples(begun.samples)) if is_labelled else Counter()
    shown = gallery([begun, *later_first] if is_labelled else later_first)
    curve = threshold_curve(evidence)
    templates = PackageLoader("bootstrap.report", "")
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["with_code"] = with_code
    page = environment.get_template("page.html.j2").render(
        name=config.name,
        config=read_json(run.config) if run.config.is_file() else {},
        rare_classes=config.rare_classes,
        legend=[(name, "rgb({},{},{})".format(*class_colour(index))) for index, name in enumerate(config.classes)],
        status=status,
        verdict=verdict or (judge_run(rows) if rows else None),
        drawn=drawn,
        best_pt=run.best,
        run_path=run.path,
        photo_cards=photo_cards(run, evidence),
        threshold_chart=draw(curve) if curve else None,
        photo_measures=_present(PHOTO_MEASURES, rows),
        in_words=in_words,
        evidence_of={key: measure.evidence for key, measure in MEASURES.items()},
        rows=rows,
        has_balance=any(row.get("balance") for row in rows),
        problems=problems,
        best=next((row for row in reversed(rows) if row["promoted"]), None),
        minutes=sum(sum(row.get("seconds", {}).values()) for row in rows) / 60,
        scores=_present(SCORES, rows),
        label_measures=_present(LABEL_MEASURES, rows),
        image_measures=_present(IMAGE_MEASURES, rows),
        findings={row["round"]: discriminated(row.get("balance", {})) for row in rows},
        by_attribute=_by_attribute(rows),
        confusion=_confusion(rows, len(config.classes)),
        confusion_names=[*config.classes, ""],
        charts=[draw(curve) for curve in curves(rows, config.rare_classes)],
        photos=[uri for folder in photos for uri in photo_uris(folder)],
        concept=[sheet_uri(path) for name in ("samples.png", "loss.png") for path in sorted(run.concept.rglob(name))],
        cards=shown,
        slots=slots_of(shown),
        begun=begun.index,
        begun_outcomes=outcomes,
        shown_rounds=sorted({card.round_index for card in shown}),
        num_images=sum(row["num_generated"] for row in rows) + outcomes.total(),
        no_value=NO_VALUE,
    )
    write_text(run.report, page)
    return run.report


def slots_of(shown: Sequence[Card]) -> dict[str, list[str]]:
    """What the gallery can be filtered by: slot -> its values, where there are at least two."""
    slots: dict[str, set[str]] = {}
    for card in shown:
        for slot, value in card.values:
            slots.setdefault(slot, set()).add(value)
    return {slot: sorted(values) for slot, values in slots.items() if len(values) > 1}


def _present(keys: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    """The measures that any round has: key -> what it is."""
    return {key: MEASURES[key].text for key in keys if any(number(row, key) is not None for row in rows)}


def _confusion(rows: Sequence[Row], num_classes: int) -> list[list[int]]:
    """The promoted round's confusion matrix; empty where there is none of these classes."""
    promoted = [cast(Mapping[str, Any], row).get(CONFUSION, []) for row in rows if row["promoted"]]
    counts = promoted[-1] if promoted else []
    size = num_classes + 1
    is_square = len(counts) == size and all(isinstance(line, list) and len(line) == size for line in counts)
    return counts if is_square else []


def _by_attribute(rows: Sequence[Row]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The detector's scores: slot -> value -> one dict per round, empty where it was not measured."""
    table: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for index, row in enumerate(rows):
        for slot, values in scores_by_attribute(row).items():
            for value, scores in values.items():
                line = table.setdefault(slot, {}).setdefault(value, [{} for _ in rows])
                line[index] = scores
    return table
