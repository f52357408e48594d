"""The scenes of the loop's benchmark that show what no photo shows."""

from __future__ import annotations

import json
from pathlib import Path

from loop import unseen_scenes

from bootstrap.config import EvaluationConfig


def test_scenes_unlike_the_photos(tmp_path: Path) -> None:
    def line(name: str, phrase: str, place: str, weather: str) -> str:
        scene = {"name": name, "phrases": [phrase], "kinds": [phrase.split()[-1]]}
        return json.dumps({**scene, "attributes": {"place": place, "weather": weather, "time": "day"}})

    lines = [
        line("usual", "red piano", "beach", "clear"),
        line("colour", "pink piano", "beach", "clear"),
        line("place", "piano", "city", "clear"),
        line("weather", "red piano", "beach", "fog"),
        line("other", "pink car", "city", "fog"),
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "data.yaml").write_text("names: [piano]\nval: images/val\n")
    evaluation = EvaluationConfig(dataset=tmp_path)
    assert unseen_scenes(evaluation, "piano", ["red", "beach", "clear"]) == {"colour", "place", "weather"}
