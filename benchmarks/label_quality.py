"""How right are attention's labels? `python benchmarks/label_quality.py --json FILE [--seed N] [--num N]`

Renders scenes of common kinds, reads the pipeline's attention from the pictures with their captions, labels them,
and compares with the exact masks. Reported by the number of objects in a scene; development uses other seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr
from tqdm import tqdm

from diffugen.attention import read_attention
from diffugen.config import AttentionConfig, AttentionLabelConfig, ModelConfig, load_config
from diffugen.evaluation import label_quality, match_instances
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.labelers import AttentionLabeler, LabelInput
from diffugen.pipelines import load_pipeline
from diffugen.prompts import ObjectPhrase, Prompt
from diffugen.toyworld import COMMON_KINDS, caption_with_phrases, render, sample_scene

ROOT = Path(__file__).parents[1]
ATTENTION = AttentionConfig(attention_factors=(1,))  # the maps at the latents' size, as in the demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--seed", type=int, default=6_000_000, help="first seed of the scenes")
    parser.add_argument("--num", type=int, default=200, help="number of scenes")
    parser.add_argument("--pipeline", default=str(ROOT / "diffugen/toyworld/weights/pipeline"), help="pipeline folder")
    parser.add_argument("--label", type=Path, help="JSON with label settings (default: the demo's)")
    args = parser.parse_args()
    labeler = AttentionLabeler(COMMON_KINDS, label_config(args.label))
    pairs = label_scenes(load_pipeline(ModelConfig(path=args.pipeline)), labeler, args.seed, args.num)
    figures: dict[str, Any] = {"seed": args.seed, "num": args.num, "all": label_quality(pairs)}
    for count in (1, 2, 3):
        figures[f"{count} objects"] = label_quality(pair for pair in pairs if len(pair[1]) == count)
    figures["score_iou_rank_correlation"] = score_correlation(pairs)
    write_json(args.json, figures)
    print({name: value for name, value in figures["all"].items() if name != "classes"})


def label_config(path: Path | None) -> AttentionLabelConfig:
    """The settings of a file, or those of the demo."""
    if path is not None:
        return load_config(path, AttentionLabelConfig)
    from train_loop import load_run_config

    return load_run_config(ROOT / "configs/demo.json", ["evaluation=null"]).label


def label_scenes(pipe: Any, labeler: AttentionLabeler, seed: int, num: int) -> list[tuple[Instances, Instances]]:
    """Labels and truth of rendered scenes."""
    pairs = []
    for k in tqdm(range(seed, seed + num), desc="scenes", unit="scene"):
        scene = sample_scene(k, common_fraction=1.0)
        drawn = render(scene)
        text, phrases = caption_with_phrases(scene, k)
        kinds = [thing.kind for thing in scene.objects]
        prompt = Prompt(text, tuple(map(ObjectPhrase, phrases, kinds)))
        (attention,) = read_attention(pipe, [drawn.image], [prompt], ATTENTION, seed=k)
        (labels,) = labeler.label([LabelInput(drawn.image, prompt, attention.heatmaps)])
        pairs.append((labels, Instances.from_masks(drawn.masks, [COMMON_KINDS.index(kind) for kind in kinds])))
    return pairs


def score_correlation(pairs: list[tuple[Instances, Instances]]) -> float:
    """Spearman's rank correlation of an instance's score and its IoU with the truth, 0 where it meets none."""
    scores, ious = [], []
    for labels, truth in pairs:
        matched = match_instances(labels, truth, iou_threshold=0.0)
        best = {int(pair[0]): float(iou) for pair, iou in zip(matched.pairs, matched.ious, strict=True)}
        scores += labels.scores.tolist()
        ious += [best.get(index, 0.0) for index in range(len(labels))]
    return float(spearmanr(scores, ious).statistic)


if __name__ == "__main__":
    main()
