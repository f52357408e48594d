"""The report: one page with everything in it, asking nothing of any server."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bootstrap.config import LoopConfig
from bootstrap.report import heat_overlay, overlay, write_report
from bootstrap.samples import write_samples
from bootstrap.state import RunFolder
from diffugen.config import validate
from diffugen.files import write_json, write_jsonl
from diffugen.images import write_png
from diffugen.instances import Instances

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


@pytest.fixture
def page(tmp_path: Path, make_samples: Callable) -> str:
    """The report of two rounds, the second rolled back, with photos and a learned concept."""
    run = RunFolder(tmp_path / "run")
    rows = []
    for index in range(2):
        folder = run.round(index)
        samples = make_samples(folder.path, [[0], [0, 1], []], rejected={1: "low_iou:car"})
        write_samples(folder, samples)
        rows.append({
            "round": index, "labeler": "attention", "num_generated": 3, "num_kept": 2, "num_rejected": 1,
            "num_review": 0, "rejected": {"low_iou:car": 1}, "label_agreement": 0.75 if index else None,
            "promoted": index == 0, "why": "because 1 < 2",
            "val/mean/mask_map50": 0.5, "val/mean/mask_map50_95": 0.25,
            "test/mask_map50": 0.875, "test/mask_map50_95": 0.5, "seconds": {"generate": 1.5, "label": 1.0},
        })  # fmt: skip
        write_json(folder.metrics, rows[-1])
    write_jsonl(run.metrics, rows)
    write_json(run.config, {"config": {"name": "</script><b>"}})
    pixels = np.zeros((20, 30, 3), np.uint8)
    for path in (run.concept / "samples.png", run.concept / "loss.png", tmp_path / "photos" / "0.png"):
        write_png(path, pixels)
    config = validate(CONFIG, LoopConfig)
    return write_report(run, config, photos=[tmp_path / "photos"]).read_text(encoding="utf-8")


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
    assert figures == ["keep", "keep", "reject"] * 2
    assert {attributes["data-outcome"] for attributes in elements.all("button")} == {"all", "keep", "reject"}
    assert "round 0's checkpoint" in page and "0.875" in page and "rolled back" in page
    assert "1 × low_iou:car" in page
    # per card an overlay and, where the prompt has objects, a heatmap; one photo; two pictures of the concept
    assert len(elements.all("img")) == 2 * (2 + 2 + 1) + 1 + 2


def test_text_is_escaped(page: str) -> None:
    assert "&lt;things&gt; &amp; others" in page and "<things>" not in page
    assert page.count("</script>") == 1 and "<b></pre>" not in page
    assert "because 1 &lt; 2" in page


def test_masks_are_drawn_where_they_are(two_objects: Instances) -> None:
    image = np.full((48, 64, 3), 100, np.uint8)
    drawn = overlay(image, two_objects)
    changed = (drawn != image).any(axis=2)
    np.testing.assert_array_equal(changed, two_objects.masks.any(axis=0))
    assert (drawn[20, 10] != drawn[20, 30]).any()  # another class, another colour
    np.testing.assert_array_equal(overlay(image, Instances.empty((48, 64))), image)


def test_heat_is_brightest_at_its_peak() -> None:
    values = np.zeros((6, 8), np.float32)
    values[4, 1] = 1e-3
    drawn = heat_overlay(np.zeros((48, 64, 3), np.uint8), values).sum(axis=2)
    y, x = np.unravel_index(drawn.argmax(), drawn.shape)
    assert 32 <= y < 40 and 8 <= x < 16
