"""How right are attention's labels? `python benchmarks/label_quality.py --json FILE [--seed N] [--num N]`

Reads a pipeline's attention from images with captions, labels them, and compares with exact masks: rendered toy scenes,
or a labelled dataset (`--dataset FOLDER --split val --phrases FILE.jsonl`). Methods are chosen with `--development`;
figures are reported on other images. Every row of the ablation leaves one step of the default method out.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import cv2
import numpy as np
import torch
from labelled_images import LabelledImage, dataset_images, toy_images
from scipy.stats import spearmanr
from tqdm import tqdm

from diffugen.attention.extract import read_attention
from diffugen.attention.heatmaps import ImageAttention
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, ModelConfig, OutlineConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.evaluation.metrics import label_quality
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.labelers import attention as attention_labeler
from diffugen.labelers.attention import AttentionLabeler
from diffugen.labelers.base import LabelInput
from diffugen.masks.matching import match_instances
from diffugen.masks.thresholding import components, otsu_mask
from diffugen.prompts.prompt import Prompt

ROOT = Path(__file__).parents[1]
BATCH = 8
OUTLINER = ROOT / "diffugen/toyworld/weights/outliner.safetensors"
TIMED_SIDE, TIMED_IMAGES = 512, 20


@dataclass(frozen=True)
class Row:
    """One way to label: a method, the step of it that is left out, and what outlines the masks."""

    method: Literal["refined", "paper"] = "refined"
    without: str = ""
    outline: OutlineConfig = field(default_factory=OutlineConfig)


ROWS = {
    "default": Row(),
    "paper": Row("paper"),
    "without self-attention": Row(without="affinity"),
    "without the root": Row(without="root"),
    "without competition": Row(without="compete"),
    "without joining and splitting": Row(without="parts"),
    "without GrabCut": Row(outline=OutlineConfig(method="none")),
    "learned outliner": Row(outline=OutlineConfig(method="learned", model=str(OUTLINER))),
    "learned outliner, split by heat alone": Row(
        without="boundaries", outline=OutlineConfig(method="learned", model=str(OUTLINER))
    ),
    "without absence test": Row(without="presence"),
}


@dataclass(frozen=True)
class Read:
    """An image with the attention of its three prompts."""

    item: LabelledImage
    shown: ImageAttention
    beside: ImageAttention
    alone: ImageAttention


def main() -> None:
    args = arguments()
    part = "development" if args.development else "reporting"
    if args.dataset is None:
        names, images = toy_images(part, args.seed, args.num)
    else:
        names, images = dataset_images(args.dataset, args.split, args.phrases, part, args.seed, args.num)
    model = ModelConfig(path=args.pipeline, device=args.device, dtype=args.dtype)
    settings = AttentionConfig(
        factors=args.factors,
        blocks=args.blocks,
        self_attention_factor=args.self_attention_factor,
        presence=True,
    )
    read = read_images(load_pipeline(model), list(images), settings)
    if not read:
        raise SystemExit("no image to label; choose another --split, --seed or --num")
    figures: dict[str, Any] = {"part": part, "seed": args.seed, "num": len(read), "pipeline": Path(args.pipeline).name}
    figures |= {"cpu": platform.processor() or platform.machine(), "rows": {}}
    for name, row in ROWS.items():
        figures["rows"][name] = measure(read, names, row)
        print(name, {key: value for key, value in figures["rows"][name].items() if not isinstance(value, dict)})
    default, paper = (1 - figures["rows"][name]["mean_iou"] for name in ("default", "paper"))
    figures["error_over_papers"] = default / paper
    figures["milliseconds_per_512x512_image"] = {
        name: milliseconds(read, names, ROWS[name]) for name in ("default", "paper", "learned outliner")
    }
    write_json(args.json, figures)
    print({key: value for key, value in figures.items() if key != "rows"})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seed", type=int, default=0, help="which images (default: 0)")
    parser.add_argument("--num", type=int, default=200, help="number of images (default: 200)")
    parser.add_argument("--development", action="store_true", help="images to choose methods on")
    parser.add_argument(
        "--pipeline", default=str(ROOT / "diffugen/toyworld/weights/pipeline"), help="id, folder or file"
    )
    parser.add_argument("--device", default="auto", help="(default: auto)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument(
        "--factors", type=int, nargs="+", default=[1, 2], help="as generate.attention.factors (default: 1 2)"
    )
    parser.add_argument("--blocks", nargs="+", default=["up"], help="as generate.attention.blocks (default: up)")
    parser.add_argument("--self-attention-factor", type=int, default=1, help="as in generate.attention (default: 1)")
    parser.add_argument("--dataset", type=Path, help="labelled dataset (default: rendered toy scenes)")
    parser.add_argument("--split", default="val", help="of the dataset (default: val)")
    parser.add_argument("--phrases", type=Path, help="JSON lines: name, caption, phrases, kinds")
    return parser.parse_args()


def read_images(pipe: Any, images: Sequence[LabelledImage], settings: AttentionConfig) -> list[Read]:
    """Read the attention of every image with each of its prompts."""
    read = []
    for start in tqdm(range(0, len(images), BATCH), desc="reading attention", unit="batch"):
        batch = images[start : start + BATCH]
        pixels = [item.image for item in batch] * 3
        prompts = [
            prompt for kind in ("prompt", "beside", "alone") for prompt in (getattr(item, kind) for item in batch)
        ]
        attention = read_attention(pipe, pixels, prompts, settings, batch_size=BATCH)
        thirds = (attention[k * len(batch) : (k + 1) * len(batch)] for k in range(3))
        read += [Read(*row) for row in zip(batch, *thirds, strict=True)]
    return read


def measure(read: Sequence[Read], class_names: Sequence[str], row: Row) -> dict[str, Any]:
    """Everything about one way to label."""
    label = labeler(class_names, row)
    pairs = [(label(one.item.image, one.item.prompt, one.shown), one.item.truth) for one in read]
    quality = label_quality(pairs)
    figures = {key: value for key, value in quality.items() if key != "classes"}
    for count in sorted({len(truth) for _, truth in pairs}):
        of_count = label_quality(pair for pair in pairs if len(pair[1]) == count)
        figures[f"{count} objects"] = {key: value for key, value in of_count.items() if key != "classes"}
    return figures | calibration(pairs) | absence(read, pairs, class_names, label)


Label = Callable[[np.ndarray, Prompt, ImageAttention], Instances]


def labeler(class_names: Sequence[str], row: Row) -> Label:
    """A function that labels one image."""
    by_attention = AttentionLabeler(class_names, AttentionLabelConfig(method=row.method, outline=row.outline))

    def once(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        return by_attention.label([LabelInput(image, prompt, attention)])[0]

    def without_affinity(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        return once(image, prompt, replace(attention, affinity=None))

    def without_competition(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        """Every phrase by itself."""
        found = [Instances.empty(image.shape[:2])]
        for phrase in dict.fromkeys(prompt.objects):
            chosen = [k for k, other in enumerate(prompt.objects) if other == phrase]
            presence = None if attention.presence is None else attention.presence[chosen]
            own = replace(attention, heatmaps=tuple(attention.heatmaps[k] for k in chosen), presence=presence)
            found.append(once(image, replace(prompt, objects=(phrase,) * len(chosen)), own))
        return Instances.concatenate(found)

    def without_root(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        with mock.patch.object(attention_labeler, "otsu_mask", lambda root: otsu_mask(np.square(root))):
            return once(image, prompt, attention)

    def without_parts(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        """Every component is an instance."""

        def parts_of(claim: np.ndarray, heat: np.ndarray, count: int, min_area: float, edges: object) -> np.ndarray:
            return components(claim, min_area) & claim

        with mock.patch.object(attention_labeler, "instance_parts", parts_of):
            return once(image, prompt, attention)

    def without_presence(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        return once(image, prompt, replace(attention, presence=None))

    def without_boundaries(image: np.ndarray, prompt: Prompt, attention: ImageAttention) -> Instances:
        with mock.patch.object(attention_labeler, "boundaries", lambda affinity: np.zeros(affinity.shape[:2])):
            return once(image, prompt, attention)

    ways = {
        "boundaries": without_boundaries,
        "affinity": without_affinity,
        "root": without_root,
        "compete": without_competition,
        "parts": without_parts,
        "presence": without_presence,
    }
    return ways.get(row.without, once)


def calibration(pairs: Sequence[tuple[Instances, Instances]]) -> dict[str, float]:
    """How a label's score goes with its IoU with the truth, which is 0 where it meets none."""
    scores, ious = [], []
    for labels, truth in pairs:
        matched = match_instances(labels, truth, iou_threshold=0.0)
        best = {int(pair[0]): float(iou) for pair, iou in zip(matched.pairs, matched.ious, strict=True)}
        scores += labels.scores.tolist()
        ious += [best.get(index, 0.0) for index in range(len(labels))]
    by_score = np.array(ious)[np.argsort(-np.array(scores), kind="stable")]
    half = len(by_score) // 2
    return {
        "score_iou_rank_correlation": float(spearmanr(scores, ious).statistic),
        "mean_iou_of_top_half_by_score": float(by_score[:half].mean()),
        "mean_iou_of_bottom_half_by_score": float(by_score[half:].mean()),
        "expected_calibration_error": calibration_error(np.array(scores), np.array(ious)),
        "mean_score_minus_iou": float(np.mean(scores) - np.mean(ious)),
    }


def calibration_error(scores: np.ndarray, ious: np.ndarray, num_bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) of scores as estimates of IoUs: the mean distance of their means,
    by equal intervals of the score, weighted by the number of labels."""
    bins = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    gaps = [(scores[bins == k].mean() - ious[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins)]
    return float(np.abs(gaps).sum())


def absence(
    read: Sequence[Read], pairs: Sequence[tuple[Instances, Instances]], class_names: Sequence[str], label: Label
) -> dict[str, float]:
    """Shares of prompts whose absent object gets no label, and of visible objects whose class gets none."""
    unlabelled: dict[str, list[bool]] = {"beside": [], "alone": []}
    for one in read:
        for kind, attention in (("beside", one.beside), ("alone", one.alone)):
            prompt = getattr(one.item, kind)
            absent = class_names.index(prompt.objects[-1].class_name)
            unlabelled[kind].append(absent not in label(one.item.image, prompt, attention).class_ids)
    called_absent = [
        class_id not in labels.class_ids for labels, truth in pairs for class_id in truth.class_ids.tolist()
    ]
    return {
        "absent_unlabelled": float(np.mean(unlabelled["beside"] + unlabelled["alone"])),
        "absent_unlabelled_beside_others": float(np.mean(unlabelled["beside"])),
        "absent_unlabelled_alone": float(np.mean(unlabelled["alone"])),
        "visible_called_absent": float(np.mean(called_absent)),
    }


def milliseconds(read: Sequence[Read], class_names: Sequence[str], row: Row) -> float:
    """Mean time from the attention of a 512x512 image, 64x64 latents, to its instances, on one core.

    Images and heatmaps are enlarged to these sizes; self-attention is of 32x32.
    """
    label = labeler(class_names, row)
    inputs = [(one.item.image, one.item.prompt, one.shown) for one in read[:TIMED_IMAGES]]
    enlarged = [(_enlarged(image), prompt, _of_512(attention)) for image, prompt, attention in inputs]
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    try:
        label(*enlarged[0])
        start = time.process_time()
        for each in enlarged:
            label(*each)
        return (time.process_time() - start) / len(enlarged) * 1000
    finally:
        cv2.setNumThreads(threads[0])


def _enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (TIMED_SIDE, TIMED_SIDE), interpolation=cv2.INTER_CUBIC)


def _of_512(attention: ImageAttention) -> ImageAttention:
    def maps(values: np.ndarray) -> np.ndarray:
        return np.maximum(cv2.resize(values, (64, 64), interpolation=cv2.INTER_CUBIC), 0)

    affinity = attention.affinity
    if affinity is not None:
        side = affinity.shape[0] * affinity.shape[1]
        flat = cv2.resize(
            affinity.reshape(side, side).astype(np.float32), (1024, 1024), interpolation=cv2.INTER_NEAREST
        )
        affinity = flat.reshape(32, 32, 32, 32).astype(np.float16)
    heatmaps = tuple(replace(heatmap, values=maps(heatmap.values)) for heatmap in attention.heatmaps)
    return replace(attention, heatmaps=heatmaps, rest=maps(attention.rest), affinity=affinity)


if __name__ == "__main__":
    main()
