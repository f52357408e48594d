"""What do a few drawn masks buy? `python benchmarks/drawn_masks.py --json FILE [--seeds N] [--round DIR]`

For each rare kind of the toy world, read by a word for something similar, photos are labelled by attention (0 masks)
and by a decoder trained on 1, 3 and 5 drawn masks, with each outliner; mean IoU with exact masks over 24 photos.
Each seed draws other photos. Methods were chosen with `--development`; figures are reported on other photos.

With `--round` the kind's demo also runs one round with each decoder, in folders of DIR that are resumed: AP of its
detector on the evaluation set, and mean IoU of its generated images' labels with those of a detector trained on
rendered truth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import ROOT, mean_rows, steps_of, truth_trained
from own_masks import ious

from bootstrap.labelers import detector_labeler
from diffugen.attention.decoder import save_decoder
from diffugen.attention.extract import read_attention
from diffugen.attention.model_defaults import with_model_defaults
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, ModelConfig, OutlineConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.diffusion.protocol import Pipeline
from diffugen.files import read_jsonl, write_json
from diffugen.instances import Instances
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.labelers.train_decoder import train_decoder
from diffugen.masks.matching import mask_iou
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.sample import read_samples
from train_loop import load_run_config, train_loop

WEIGHTS = ROOT / "diffugen/toyworld/weights"
DEMOS = {"grand-piano": "demo", "rubber-duck": "demo-rubber-duck", "car-accident": "demo-car-accident"}
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
    parser.add_argument("--round", type=Path, metavar="DIR", help="also run a round of the demo with each decoder")
    args = parser.parse_args()
    part = "development" if args.development else "reporting"
    pipe = load_pipeline(ModelConfig(path=str(WEIGHTS / "pipeline")))
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        photos = [photo(kind, FIRST_PHOTO[part] + number) for number in range(NUM_PHOTOS)]
        for seed in range(args.seeds):
            rows += [measure(pipe, kind, photos, seed, count, args.round) for count in DRAWN]
            write_json(args.json, {"part": part, "rows": rows, "mean": tables(rows)})
            print(rows[-len(DRAWN) :], flush=True)


def photo(kind: str, seed: int) -> Photo:
    """A rendered photo of one object, and its mask."""
    from diffugen.toyworld import render
    from diffugen.toyworld.scene import sample_scene

    drawn = render(sample_scene(seed, num_objects=1, required_kinds=(kind,)))
    return drawn.image, drawn.masks[0]


def measure(
    pipe: Pipeline, kind: str, photos: Sequence[Photo], seed: int, count: int, round_dir: Path | None
) -> dict[str, Any]:
    """Mean IoU of the photos' labels by outliner, for a number of drawn masks; and what a round makes of them."""
    word = WORDS[kind]
    prompt = Prompt(f"a photo of a {word}", (ObjectPhrase(word, kind),))
    row: dict[str, Any] = {"kind": kind, "seed": seed, "drawn": count}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) if round_dir is None else round_dir / kind / f"seed_{seed}"
        path = out / f"decoder_{count}.safetensors" if count else None
        if path is not None and not path.is_file():
            drawn = [photo(kind, FIRST_DRAWN + 100 * seed + number) for number in range(count)]
            known = [(image, Instances.from_masks(mask[None], [0])) for image, mask in drawn]
            out.mkdir(parents=True, exist_ok=True)
            save_decoder(train_decoder(pipe, known, prompt, STEPS, seed), path, {})
        images = [image for image, _ in photos]
        read = read_attention(pipe, images, [prompt] * len(images), AttentionConfig(decoder=path))
        row |= {name: mean_iou(photos, prompt, read, kind, outline) for name, outline in OUTLINES.items()}
        if round_dir is not None:
            row |= one_round(pipe, kind, path, seed, out, f"drawn_{count}")
    return row


def one_round(pipe: Pipeline, kind: str, decoder: Path | None, seed: int, out: Path, name: str) -> dict[str, float]:
    """AP of the detector of one round of the kind's demo whose images a decoder labels, and the labels' mean IoU."""
    overrides = [] if decoder is None else [f'generate.attention.decoder="{decoder}"']
    settings = ["rounds.num_rounds=1", "executor=null", f"seed={seed}", *overrides]
    config = load_run_config(ROOT / f"configs/{DEMOS[kind]}.json", settings)
    run = train_loop(config, out / name)
    config = config.resolved(with_model_defaults(config.generate, pipe))
    samples = [one for one in read_samples(run.round(0).samples) if one.kept and not one.is_photo]
    rare = config.classes.index(kind)
    shown = [one for one in samples if rare in one.class_ids]
    truth_trained(config, out / "bound", 200, steps_of(200, config))
    bound = detector_labeler(out / "bound/best.pt", config)
    true = [bound.label([LabelInput(one.pixels())])[0] for one in shown]
    (row,) = read_jsonl(run.metrics)
    return {
        "generated": ious({"labels": [one.instances for one in shown]}, true, rare)["labels"],
        "detector mAP50-95": row["test/mask_map50_95"],
    }


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
