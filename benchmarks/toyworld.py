"""How good is the toy world? `python benchmarks/toyworld.py --json FILE [--seed N] [--num N]`

- prompt fidelity: share of images generated for common kinds in which the base detector finds the prompted kind,
  beside the same with the prompts shuffled, which is chance;
- localisation: mean IoU of Otsu's mask of plain cross-attention, read from rendered scenes, against exact masks;
- base detector: average precision on rendered scenes that it has not seen;
- rarity: the rare kinds' highest silhouette IoU to any kind of the training;
- renderer: milliseconds per scene.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffugen.attention.extract import generate_with_attention, read_attention
from diffugen.attention.heatmaps import Heatmap
from diffugen.config.settings import AttentionConfig, GenerateConfig, ModelConfig
from diffugen.detector.model import load_detector, predict
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.evaluation.metrics import average_precision
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.masks.thresholding import otsu_mask, upsample
from diffugen.prompts.prompt import ObjectPhrase, Prompt
from diffugen.toyworld import render
from diffugen.toyworld.captions import PLACE_PHRASES, TIME_PHRASES, caption_with_phrases, with_article
from diffugen.toyworld.palette import COLOURS
from diffugen.toyworld.rarity import rarity_table
from diffugen.toyworld.scene import COMMON_KINDS, sample_scene

WEIGHTS = Path(__file__).parents[1] / "diffugen/toyworld/weights"
ATTENTION = AttentionConfig(blocks=("down", "up"), factors=(1,), self_attention_factor=0)  # plain, at the latents' size
SETTINGS = GenerateConfig(height=128, width=128, num_inference_steps=20, guidance_scale=4.0, batch_size=20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seed", type=int, default=5_000_000, help="first seed of the scenes; nothing else uses them")
    parser.add_argument("--num", type=int, default=200, help="images per figure")
    parser.add_argument("--pipeline", type=Path, default=WEIGHTS / "pipeline", help="pipeline folder")
    parser.add_argument("--detector", type=Path, default=WEIGHTS / "detector.safetensors", help="base detector")
    args = parser.parse_args()
    pipe = load_pipeline(ModelConfig(path=str(args.pipeline)))
    figures: dict[str, Any] = {"seed": args.seed, "num": args.num, "threads": torch.get_num_threads()}
    figures["fidelity"] = fidelity(pipe, args.detector, args.num, args.seed)
    figures["localisation"] = localisation(pipe, args.num, args.seed)
    figures["detector"] = detector_precision(args.detector, args.num, args.seed)
    figures["rarity"] = {rare: {"kind": kind, "iou": round(iou, 3)} for rare, (kind, iou) in rarity_table().items()}
    figures["render_ms"] = render_time()
    write_json(args.json, figures)
    print(figures)


def fidelity(pipe: Any, detector: Path, num: int, seed: int) -> dict[str, Any]:
    """Share of generated images in which the prompted kind is found at confidence 0.25, and with shuffled prompts."""
    rng = np.random.default_rng(seed)
    kinds = [COMMON_KINDS[k % len(COMMON_KINDS)] for k in range(num)]
    prompts = [_prompt(kind, rng) for kind in kinds]
    model = load_detector(detector)
    found: list[set[int]] = []
    for start in range(0, num, SETTINGS.batch_size):
        batch = prompts[start : start + SETTINGS.batch_size]
        seeds = [seed + start + k for k in range(len(batch))]
        images = [image for image, _ in generate_with_attention(pipe, batch, seeds, SETTINGS)]
        labels = predict(model, images, class_names=COMMON_KINDS, score_threshold=0.25)
        found += [set(instances.class_ids.tolist()) for instances in labels]
    ids = np.array([COMMON_KINDS.index(kind) for kind in kinds])
    hits = np.array([k in classes for k, classes in zip(ids, found, strict=True)])
    chance = np.mean([k in classes for k, classes in zip(rng.permutation(ids), found, strict=True)])
    by_kind = {kind: round(float(hits[ids == k].mean()), 2) for k, kind in enumerate(COMMON_KINDS)}
    return {"share": float(hits.mean()), "chance": float(chance), "by_kind": by_kind}


def _prompt(kind: str, rng: np.random.Generator) -> Prompt:
    phrase = f"{rng.choice(list(COLOURS))} {kind}"
    place, hour = rng.choice(list(PLACE_PHRASES.values())), rng.choice(list(TIME_PHRASES.values()))
    return Prompt(f"a photo of {with_article(phrase)} {place} {hour}", (ObjectPhrase(phrase, kind),))


def localisation(pipe: Any, num: int, seed: int) -> dict[str, float]:
    """Mean IoU per object of Otsu's mask of its phrase's plain heat, real scenes noised to t = 100, 200, 300."""
    ious: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for k in range(num):
        scene = sample_scene(seed + k, common_fraction=1.0)
        drawn = render(scene)
        text, phrases = caption_with_phrases(scene, k)
        pairs = zip(phrases, scene.objects, strict=True)
        prompt = Prompt(text, tuple(ObjectPhrase(phrase, thing.kind) for phrase, thing in pairs))
        (attention,) = read_attention(pipe, [drawn.image], [prompt], ATTENTION, seed=k)
        ious[len(phrases)] += [
            _otsu_iou(heat, mask) for heat, mask in zip(attention.heatmaps, drawn.masks, strict=True)
        ]
    every = [iou for group in ious.values() for iou in group]
    by_count = {f"mean_iou_{count}_objects": float(np.mean(group)) for count, group in ious.items() if group}
    return {"mean_iou": float(np.mean(every)), **by_count}


def _otsu_iou(heat: Heatmap, truth: np.ndarray) -> float:
    mask = otsu_mask(upsample(heat.values, truth.shape))
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


def detector_precision(detector: Path, num: int, seed: int) -> dict[str, float | None]:
    """AP of the base detector on rendered scenes of common kinds."""
    truths, images = [], []
    for k in range(num):
        scene = sample_scene(seed + 100_000 + k, kinds=COMMON_KINDS)
        drawn = render(scene)
        images.append(drawn.image)
        ids = [COMMON_KINDS.index(thing.kind) for thing in scene.objects]
        truths.append(Instances.from_masks(drawn.masks, ids))
    labels = predict(load_detector(detector), images, class_names=COMMON_KINDS, score_threshold=0.001)
    return average_precision(labels, truths, COMMON_KINDS)["mean"]


def render_time(num: int = 200) -> float:
    """Milliseconds of one core per 128x128 scene, sampling included."""
    start = time.process_time()
    for seed in range(num):
        render(sample_scene(seed))
    return round((time.process_time() - start) / num * 1000, 2)


if __name__ == "__main__":
    main()
