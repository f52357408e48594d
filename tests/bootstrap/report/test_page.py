"""The report: one page with everything in it, asking nothing of any server."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright
from round_samples import doubtful, make_instances

from bootstrap.config import LoopConfig
from bootstrap.evidence import Evidence, PhotoFinding
from bootstrap.measures.balance import balance
from bootstrap.report.page import write_report
from bootstrap.report.pictures import gallery
from bootstrap.run_folder import RoundFolder, RunFolder
from bootstrap.verdict import RunVerdict
from diffugen.config.loader import validate
from diffugen.files import read_jsonl, write_json, write_jsonl
from diffugen.images import write_png
from diffugen.sample import Sample, write_samples

CONFIG = {
    "name": "piano",
    "classes": ["piano", "car"],
    "rare_classes": ["piano"],
    "model": {"path": "unused"},
    "prompts": {"templates": [{"text": "a {any}"}], "objects": {"any": {"piano": ["piano"], "car": ["car"]}}},
    "detector": {"base_weights": "unused"},
}


class Elements(HTMLParser):
    """Counts start tags, keeps their attributes, and checks that they close in order."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def make_round(folder: RoundFolder, make_samples: Callable) -> list[Sample]:
    """Four samples, at two times of day: two kept, one rejected, one for review; detected from round 1 on."""
    samples = make_samples(folder.path, [[0], [0, 1], [], [1]], rejected={1: "low_iou:car"})
    samples[3] = doubtful(samples[3], "flipped_low_iou:car")
    detected = {} if folder.index == 0 else {"detector": samples[0].encoded_labels["attention"]}
    return [
        replace(
            sample,
            prompt=replace(sample.prompt, attributes={"time": ("at night", "")[number % 2]}),
            decision=replace(sample.decision, labels={**sample.encoded_labels, **detected}),
        )
        for number, sample in enumerate(samples)
    ]


def make_row(index: int, samples: list[Sample]) -> dict[str, Any]:
    by_time = {"night": {"num_images": 7, "mask_map50": 0.5, "mask_map50_95": 0.125 + index / 4}}
    return {
        "round": index, "labeler": "attention", "num_generated": 4, "num_kept": 2, "num_rejected": 1,
        "num_review": 1, "rejected": {"low_iou:car": 1}, "label_agreement": 0.75 if index else None,
        "labels_from": "attention", "labels_why": "0.2 < 0.5 <of agreement>",
        "promoted": index == 0, "why": "because 1 < 2", "balance": balance(samples),
        "images/vendi_score": 3.21, "images/near_duplicate_fraction": 0.0, "test/labels/attention/mean_iou": 0.625,
        "val/mean/mask_map50": 0.5, "val/mean/mask_map50_95": 0.25, "test/by_attribute": {"time": by_time},
        "test/confusion": [[41, 2, 3], [0, 17, 1], [5, 0, 0]],
        "test/mask_map50": 0.875, "test/mask_map50_95": 0.5, "seconds": {"generate": 90.0, "label": 30.0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_samples: Callable) -> Path:
    """The report of two rounds, the second rolled back, with photos of which the object is found on one of two."""
    folder = tmp_path_factory.mktemp("report")
    run, rows = RunFolder(folder / "run"), []
    for index in range(2):
        samples = make_round(run.round(index), make_samples)
        write_samples(run.round(index).samples, samples)
        rows.append(make_row(index, samples))
        write_json(run.round(index).metrics, rows[-1])
    write_jsonl(run.metrics, rows)
    write_json(run.config, {"config": {"name": "</script><b>"}})
    found = make_instances([0]).to_json()
    shared = {"class_name": "piano", "false_score": 0.0, "image": "photos/00/images/0.png", "outline": found}
    judged = (
        PhotoFinding("found.jpg", score=0.9, iou=0.7, judge="fold 0", found=found, **shared),
        PhotoFinding("missed.jpg", score=0.0, iou=None, judge="checkpoint", found=found, **shared),
    )
    Evidence(judged).write(run.round(0).evidence)
    write_png(run.photos / "00" / "images" / "0.png", np.zeros((48, 64, 3), np.uint8))
    pixels = np.zeros((20, 900, 3), np.uint8)
    for path in (run.concept / "samples.png", run.concept / "loss.png", folder / "photos" / "0.png"):
        write_png(path, pixels)
    problems = ["Weights & Biases: logging a round failed (<no reason>)"]
    return write_report(run, validate(CONFIG, LoopConfig), photos=[folder / "photos"], problems=problems)


@pytest.fixture
def page(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    sources = [attributes["src"] for attributes in elements.all("img")]
    assert sources and all(source and source.startswith("data:image/") for source in sources)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|/)|@import|url\(""", page)
    assert 'name="viewport"' in page


def test_the_page_shows_every_round_and_the_promoted_one(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    figures = [attributes["data-outcome"] for attributes in elements.all("figure")]
    assert figures == ["review", "reject", "keep", "keep"] * 2
    buttons = {attributes.get("data-outcome") for attributes in elements.all("button")}
    assert buttons == {"all", "keep", "reject", "review", None}
    assert "round 0" in page and "0.875" in page and "rolled back" in page
    assert "1 × attention places car elsewhere than the detector" in page and "low_iou" not in page
    # images with their masks by attention, by the detector in round 1, and heatmaps where the prompt has objects;
    # one photo of the concept and two that were judged; two pictures of the concept
    assert len(elements.all("img")) == (3 + 3 + 2 + 3) + (4 + 4 + 3 + 4) + 1 + 2 + 2


def test_the_verdict_and_the_photos_come_first(page: str) -> None:
    top = page[page.index("<h1>") : page.index('id="rounds"')]
    assert top.index('class="panel verdict review"') < top.index("<nav>") < top.index('id="photos"')
    assert "There is no evidence" in top and "diffugen predict NEW_PHOTOS --weights" in top
    cards = top[top.index('id="photos"') :]
    assert cards.index("missed.jpg") < cards.index("found.jpg")
    assert "confidence 0.90, IoU 0.70 with the best outline; judged by a detector without it (fold 0)" in cards
    assert "F1" in cards and 'class="mark"' in cards
    assert "http-equiv" not in page and "measured on" in page and "evaluation set" in page


def test_a_failed_run_is_not_offered_for_use(report: Path, tmp_path: Path) -> None:
    run, config = RunFolder(shutil.copytree(report.parent, tmp_path / "run")), validate(CONFIG, LoopConfig)
    failed = RunVerdict("failed", ("It finds nothing.",), ("Train longer.",))
    page = write_report(run, config, verdict=failed).read_text(encoding="utf-8")
    top = page[: page.index("<nav>")]
    assert "Train longer" in top and "diffugen predict" not in top and "diffugen review export" in top


def test_sections_without_content_are_left_out(tmp_path: Path, make_samples: Callable) -> None:
    run = RunFolder(tmp_path / "run")
    samples = make_round(run.round(0), make_samples)
    write_samples(run.round(0).samples, samples)
    row = make_row(0, samples) | {"labeler": "none", "labels_from": "given"}
    del row["balance"]
    write_json(run.round(0).metrics, row)
    write_jsonl(run.metrics, [row])
    page = write_report(run, validate(CONFIG, LoopConfig)).read_text(encoding="utf-8")
    assert "What the filter keeps" not in page and "<td>0</td><td>given</td>" in page
    assert "4 of 4 images are on this page" in page


def test_a_page_of_a_run_in_progress_says_so_and_reloads(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    page = write_report(run, validate(CONFIG, LoopConfig), status="round 1/3: labelling").read_text(encoding="utf-8")
    assert "Running: round 1/3: labelling." in page and 'http-equiv="refresh"' in page
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    # nothing is shown of what there is not yet
    assert [target for target in ("rounds", "measures", "filter", "images") if f'{target}"' in page] == []
    assert "after 0 rounds" not in page and "photos kept" not in page
    assert "<script" not in page  # it would look for the gallery


def test_a_round_that_is_labelled_is_shown_while_it_trains(tmp_path: Path, make_samples: Callable) -> None:
    run = RunFolder(tmp_path / "run")
    samples = make_round(run.round(0), make_samples)
    write_samples(run.round(0).samples, samples)
    config = validate(CONFIG, LoopConfig)
    page = write_report(run, config, status="round 0 (1 of 3), fine-tuning").read_text(encoding="utf-8")
    kept = sum(sample.kept for sample in samples)
    assert f"Round 0 is labelled: {kept} of {len(samples)} images and photos kept" in page
    assert f"{len(samples)} of {len(samples)} images are on this page" in page and "<script" in page
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    samples[0].image_path.unlink()
    samples[1].heatmap_path.write_bytes(b"")
    page = write_report(run, config, status="round 0 (1 of 3), generating").read_text(encoding="utf-8")
    assert f"{len(samples) - 2} of {len(samples)} images are on this page" in page, "a report stops no run"
    ended = write_report(run, config).read_text(encoding="utf-8")
    assert "is labelled" not in ended, "it was stopped: what it has so far is no result"


def test_the_page_stays_small(tmp_path: Path, make_samples: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootstrap.report.pictures.GALLERY_BYTES", 12_000)
    folders = [RunFolder(tmp_path).round(index) for index in range(2)]
    for folder in folders:
        write_samples(folder.samples, make_round(folder, make_samples))
    shown = gallery(folders)
    assert 0 < len(shown) < 8 and shown[0].round_index == 0
    assert sum(len(uri) for card in shown for _, uri in card.pictures) <= 12_000


def test_the_page_tells_decisions_and_measures(page: str) -> None:
    assert "was labelled by attention: 0.2 &lt; 0.5 &lt;of agreement&gt;" in page
    assert "because 1 &lt; 2" in page
    assert '<p class="problem">Weights &amp; Biases: logging a round failed (&lt;no reason&gt;)</p>' in page
    for text in ("Vendi score", "3.210", "against the truth", "0.625", "near-duplicates"):
        assert text in page
    attributes = page[page.index('id="attributes"') : page.index('id="images"')]
    assert "night" in attributes and "0.125" in attributes and "0.375" in attributes and "<td>7</td>" in attributes
    kept = page[page.index('id="filter"') : page.index('id="attributes"')]
    assert "at night" in kept and "(none)" in kept and "nothing is kept less often" in kept


def test_text_is_escaped(page: str) -> None:
    assert "&lt;things&gt; &amp; others" in page and "<things>" not in page
    assert page.count("</script>") == 1 and "<b></pre>" not in page


def test_a_value_that_the_filter_discriminates_against_is_named(tmp_path: Path, report: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(report.parent, run.path)
    rows = read_jsonl(run.metrics)
    times = {"at night": (1, 20, 0.01, 0.2), "by day": (19, 20, 0.8, 0.99)}
    values = {
        value: {
            "generated": all_of_them, "keep": keep, "reject": all_of_them - keep, "review": 0, "agreement": None,
            "keep_rate": keep / all_of_them, "keep_rate_low": low, "keep_rate_high": high,
        }
        for value, (keep, all_of_them, low, high) in times.items()
    }  # fmt: skip
    rows[1]["balance"] = {"time": {"p_value": 0.001, "values": values}}
    write_jsonl(run.metrics, rows)
    page = write_report(run, validate(CONFIG, LoopConfig)).read_text(encoding="utf-8")
    assert "keeps 1 of 20 images of time “at night”, 50 % of all" in page


@pytest.fixture
def open_page(report: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report in a headless Chromium of the system's; `problems` on the page gathers what goes wrong."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine; install the package 'chromium'")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)

        def open_it(width: int = 1200) -> Page:
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.problems = []  # type: ignore[attr-defined]
            page.on("console", lambda message: page.problems.append(message.text))  # type: ignore[attr-defined]
            page.on("pageerror", lambda error: page.problems.append(str(error)))  # type: ignore[attr-defined]
            page.on("request", lambda request: requested.append(request.url))
            page.goto(report.as_uri())
            return page

        requested: list[str] = []
        yield open_it
        browser.close()
        outside = [url for url in requested if not url.startswith(("file:", "data:"))]
        assert outside == [], "the page asked a server for something"


def outcomes(page: Page) -> list[str]:
    """The outcomes of the pictures that can be seen."""
    return page.locator("figure:visible").evaluate_all("all => all.map(figure => figure.dataset.outcome)")


def test_a_browser_filters_the_gallery_without_complaint(open_page: Callable[..., Page]) -> None:
    page = open_page()
    assert outcomes(page) == ["review", "reject", "keep", "keep"] * 2
    page.get_by_role("button", name="rejected").click()
    assert outcomes(page) == ["reject"] * 2
    assert page.locator("#count").inner_text() == "2 of 8 images"
    page.get_by_label("round", exact=True).select_option("1")
    assert outcomes(page) == ["reject"]
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_label("time", exact=True).select_option("at night")
    assert outcomes(page) == ["keep", "keep"]
    page.get_by_label("class", exact=True).select_option("piano")
    assert outcomes(page) == ["keep"]
    page.get_by_label("time", exact=True).select_option("")
    page.get_by_label("round", exact=True).select_option("")
    assert page.locator("#count").inner_text() == "4 of 8 images"
    assert page.problems == []  # type: ignore[attr-defined]


def test_pictures_stand_side_by_side_and_are_all_there(open_page: Callable[..., Page]) -> None:
    page = open_page()
    figures = page.locator("figure").evaluate_all(
        "all => all.map(figure => [...figure.querySelectorAll('img')].map(image => image.getBoundingClientRect().y))"
    )
    assert max(map(len, figures)) == 4
    assert all(len(set(tops)) <= 1 for tops in figures)
    widths = page.locator("img").evaluate_all("all => all.map(image => image.naturalWidth)")
    assert widths and min(widths) > 0


def test_a_phone_can_use_the_page(open_page: Callable[..., Page]) -> None:
    page = open_page(width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for control in page.locator("#controls button, #controls select").all():
        box = control.bounding_box()
        assert box and box["height"] >= 32 and box["x"] >= 0 and box["x"] + box["width"] <= 375
    page.get_by_role("button", name="review").click()
    assert outcomes(page) == ["review"] * 2
    figure = page.locator("figure:visible").first.bounding_box()
    assert figure and 300 < figure["width"] <= 375
    assert page.problems == []  # type: ignore[attr-defined]


def test_the_promoted_rounds_confusion_is_shown(page: str) -> None:
    table = page[page.index('id="confusion"') :]
    rows = re.findall(r"<tr><td>([^<]+)</td>((?:<td>[^<]+</td>)+)</tr>", table[: table.index("</table>")])
    assert [(name, re.findall(r">([^<]+)<", cells)) for name, cells in rows] == [
        ("piano", ["41", "2", "3"]),
        ("car", ["0", "17", "1"]),
        ("no object", ["5", "0", "·"]),
    ]
