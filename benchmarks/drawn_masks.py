"""What do a few drawn masks buy? `python benchmarks/drawn_masks.py --json FILE [--seeds N] [--development]`

For each rare kind of the toy world, read by a word for something similar, photos are labelled by attention (0 masks)
and by a decoder trained on 1, 3 and 5 drawn masks, with each outliner; mean IoU with exact masks over 24 photos.
Each seed draws other photos. Methods were chosen with `--development`; figures are reported on other photos.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import mean_rows

from diffugen.attention.decoder import save_decoder
from diffugen.attention.extract import read_attention
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, ModelConfig, OutlineConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.diffusion.protocol import Pipeline
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.labelers.train_decoder import train_decoder
from diffugen.masks.matching import mask_iou
from diffugen.prompts.prompt import ObjectPhrase, Prompt

WEIGHTS = Path(__file__).parents[1] / "diffugen/toyworld/weights"
WORDS = {"grand-piano": "bench", "rubber-duck": "bench", "car-accident": "car"}
DRAWN, NUM_PHOTOS, STEPS = (0, 1, 3, 5), 24, 300
FIRST_DRAWN, FIRST_PHOTO = 870_000, {"development": 885_000, "reporting": 895_000}
OUTLINES = {
    "none": OutlineConfig(method="none"),
    "grabcut": OutlineConfig(method="grabcut"),
    "learned": OutlineConfig(method="learned", model=str(WEIGHTS / "outliner.safetensors")),
}

Photo = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--kinds", nargs="+", choices=WORDS, default=list(WORDS), help="(default: all)")
    parser.add_argument("--development", action="store_true", help="photos to choose methods on")
    args = parser.parse_args()
    part = "development" if args.development else "reporting"
    pipe = load_pipeline(ModelConfig(path=str(WEIGHTS / "pipeline")))
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        photos = [photo(kind, FIRST_PHOTO[part] + number) for number in range(NUM_PHOTOS)]
        for seed in range(args.seeds):
            rows += measure_seed(pipe, kind, photos, seed)
            write_json(args.json, {"part": part, "rows": rows, "mean": tables(rows)})
            print(rows[-len(DRAWN) :], flush=True)


def photo(kind: str, seed: int) -> Photo:
    """A rendered photo of one object, and its mask."""
    from diffugen.toyworld import render
    from diffugen.toyworld.scene import sample_scene

    drawn = render(sample_scene(seed, num_objects=1, required_kinds=(kind,)))
    return drawn.image, drawn.masks[0]


def measure_seed(pipe: Pipeline, kind: str, photos: Sequence[Photo], seed: int) -> list[dict[str, Any]]:
    """Mean IoU of the photos' labels by outliner, a row per number of drawn masks."""
    word = WORDS[kind]
    prompt = Prompt(f"a photo of a {word}", (ObjectPhrase(word, kind),))
    drawn = [photo(kind, FIRST_DRAWN + 100 * seed + number) for number in range(max(DRAWN))]
    rows = []
    for count in DRAWN:
        with tempfile.TemporaryDirectory() as folder:
            path = None
            if count:
                known = [(image, Instances.from_masks(mask[None], [0])) for image, mask in drawn[:count]]
                path = Path(folder) / "decoder.safetensors"
                save_decoder(train_decoder(pipe, known, prompt, STEPS, seed), path, {})
            images = [image for image, _ in photos]
            read = read_attention(pipe, images, [prompt] * len(images), AttentionConfig(decoder=path))
        ious = {name: mean_iou(photos, prompt, read, kind, outline) for name, outline in OUTLINES.items()}
        rows.append({"kind": kind, "seed": seed, "drawn": count, **ious})
    return rows


def mean_iou(
    photos: Sequence[tuple[np.ndarray, np.ndarray]],
    prompt: Prompt,
    read: Sequence[Any],
    kind: str,
    outline: OutlineConfig,
) -> float:
    """Mean IoU of each photo's best label with its mask; 0 without one."""
    labeler = AttentionLabeler([kind], AttentionLabelConfig(outline=outline))
    found = labeler.label([LabelInput(image, prompt, one) for (image, _), one in zip(photos, read, strict=True)])
    pairs = zip(found, photos, strict=True)
    return float(np.mean([mask_iou(labels.masks, mask[None]).max(initial=0) for labels, (_, mask) in pairs]))


def tables(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds, by kind and number of drawn masks."""
    kinds = dict.fromkeys(row["kind"] for row in rows)
    chosen = {
        kind: [{key: row[key] for key in row if key != "kind"} for row in rows if row["kind"] == kind] for kind in kinds
    }
    return {kind: {str(key): value for key, value in mean_rows(own, "drawn").items()} for kind, own in chosen.items()}


if __name__ == "__main__":
    main()
