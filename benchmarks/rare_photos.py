"""How right are attention's labels of photos of rare objects? `python benchmarks/rare_photos.py --json FILE
[--token EMBEDDINGS]`

Rendered photos of one object each, of kinds that neither the diffusion model nor the outliner was trained on, read in
one pass with a word for something similar: a duck as "bench", an accident as "car", a piano as "bench", or by its own
learned token. Mean IoU with exact masks, an object without a label counting 0, for each way to outline.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffugen.attention.extract import read_attention
from diffugen.attention.model_defaults import with_model_defaults
from diffugen.config.settings import AttentionLabelConfig, GenerateConfig, ModelConfig, OutlineConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.masks.matching import mask_iou
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.toyworld.palette import COLOURS
from diffugen.toyworld.render import render
from diffugen.toyworld.scene import sample_scene

WEIGHTS = Path(__file__).parents[1] / "diffugen/toyworld/weights"
FIRST_SEED = {"development": 5_500_000, "reporting": 6_500_000}
WORDS = {"rubber-duck": "bench", "car-accident": "car", "grand-piano": "bench"}
OUTLINES = {
    "none": OutlineConfig(method="none"),
    "grabcut": OutlineConfig(),
    "learned": OutlineConfig(method="learned", model=str(WEIGHTS / "outliner.safetensors")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--num", type=int, default=48, help="photos of each kind (default: 48)")
    parser.add_argument("--development", action="store_true", help="photos to choose methods on")
    parser.add_argument("--token", type=Path, help="learned embeddings of <grand-piano>")
    args = parser.parse_args()
    first = FIRST_SEED["development" if args.development else "reporting"]
    embeddings = () if args.token is None else (args.token,)
    pipe = load_pipeline(ModelConfig(path=str(WEIGHTS / "pipeline"), embeddings=embeddings))
    reads = [*WORDS.items(), *([("grand-piano", "<grand-piano>")] if args.token else [])]
    rows = [measure(pipe, kind, word, range(first, first + args.num)) for kind, word in reads]
    write_json(args.json, rows)


def measure(pipe: Any, kind: str, word: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean IoU of the labels of one kind's photos, by the way to outline."""
    photos = [photo(kind, seed) for seed in seeds]
    prompt = Prompt(f"a photo of a {word}", (ObjectPhrase(word, kind),))
    settings = with_model_defaults(GenerateConfig(), pipe).attention
    images = [image for image, _ in photos]
    attention = read_attention(pipe, images, [prompt] * len(images), settings, batch_size=8)
    row: dict[str, Any] = {"kind": kind, "word": word, "num": len(photos)}
    for name, outline in OUTLINES.items():
        labeler = AttentionLabeler([kind], AttentionLabelConfig(outline=outline))
        found = labeler.label([LabelInput(image, prompt, read) for image, read in zip(images, attention, strict=True)])
        ious = [iou(labels, truth) for labels, (_, truth) in zip(found, photos, strict=True)]
        row[name] = round(float(np.mean(ious)), 4)
    print(row, flush=True)
    return row


def photo(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo of one object, and its mask."""
    colour = list(COLOURS)[seed % len(COLOURS)]
    drawn = render(sample_scene(seed, num_objects=1, required_kinds=(kind,), colour=colour))
    return drawn.image, drawn.masks[:1]


def iou(labels: Instances, truth: np.ndarray) -> float:
    """IoU of the best label, 0 without any."""
    return float(mask_iou(labels.masks, truth).max(initial=0.0))


if __name__ == "__main__":
    main()
