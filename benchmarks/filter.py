"""What does the disagreement filter gain? `python benchmarks/filter.py --json FILE [--seeds N] [--config FILE]`

For every seed's loop, in which agreement decides (`rounds.filter.by`), whatever the config says:
- labels: rendered scenes, whose truth is known, read with their captions, labelled and judged as in round 0 (by
  attention's scores) and as in later rounds (by agreement with the loop's detectors): how right attention's labels of
  all images are, of those that are kept, rejected or put aside, and by reason; and the masks that kept ones are given;
- detectors: the base detector trained on the images that later rounds kept, on as many drawn from all that they
  generated, and on all of them, each with attention's labels and for as many steps; and on those that were kept with
  the masks that they were given, cut from all labelers' but the predecessor's; the rare class's mask AP on the config's
  evaluation set. The pool's photos are left out.
Finished parts are not made again, so the command can be stopped and given again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from comparison import (
    RARE_FRACTION,
    markdown,
    mean_rows,
    options,
    samples_trained,
    seeded_configs,
    steps_of,
)

from bootstrap.config import FilterConfig
from bootstrap.disagreement import above_threshold
from bootstrap.judging import judge_images
from bootstrap.labelers import label_samples, round_labelers
from bootstrap.run_folder import RunFolder
from diffugen.attention.extract import read_attention
from diffugen.datasets.folder import read_dataset
from diffugen.evaluation.metrics import label_quality
from diffugen.files import read_json, read_jsonl, write_json
from diffugen.instances import Instances
from diffugen.prompts.prompt import ObjectPhrase, Prompt, class_words
from diffugen.sample import Sample, read_samples
from diffugen.toyworld.scenes_dataset import write_scenes
from train_loop import RunConfig, prepare_pipeline, train_loop

FIRST_SEED = 997_000  # methods were chosen on scenes from 990,000 on
QUALITY = ("mean_iou", "precision", "recall")
LABEL_COLUMNS = {"share": "share", "mean IoU": "mean_iou", "precision": "precision", "recall": "recall"}
DETECTOR_COLUMNS = {"images": "num_images", "mask mAP50": "mask_map50", "mask mAP50-95": "mask_map50_95"}


def main() -> None:
    parser = options(__doc__, Path("runs/benchmark/filter"))
    parser.add_argument("--num-scenes", type=int, default=200, help="rendered scenes (default: 200)")
    args = parser.parse_args()
    labels: list[dict[str, Any]] = []
    detectors: list[dict[str, Any]] = []
    for config in seeded_configs(args, "rounds.filter.by=agreement"):
        out = args.out / config.name / f"seed_{config.seed}"
        run = train_loop(config, out / "loop")
        labels += measure_labels(config, run, out / f"labels_{args.num_scenes}", args.num_scenes)
        detectors += measure_detectors(config, run, out)
        tables = {"labels": mean_rows(labels, "images"), "detectors": mean_rows(detectors, "trained on")}
        write_json(args.json, {"config": args.config.name, "labels": labels, "detectors": detectors, "tables": tables})
        print(f"seed {config.seed} is done", flush=True)
    print(markdown(mean_rows(labels, "images"), "images", LABEL_COLUMNS), end="\n\n")
    print(markdown(mean_rows(detectors, "trained on"), "trained on", DETECTOR_COLUMNS))


def measure_labels(config: RunConfig, run: RunFolder, out: Path, num: int) -> list[dict[str, Any]]:
    """Rows of the quality of attention's labels on rendered scenes, by judge, what became of the images, and why;
    and of the masks that kept ones are given instead."""
    result = out / "rows.json"
    if not result.is_file():
        scenes, truths = read_scenes(config, run, out, num)
        labels = label_samples(scenes, round_labelers(config, run, with_detector=True), "rendered scenes")
        by_attention = [{"attention": encoded["attention"]} for encoded in labels]
        rows: list[dict[str, Any]] = []
        for judge, given in (("attention", by_attention), ("agreement", labels)):
            samples = judge_images(scenes, given, config)
            rows += label_rows(judge, attended(samples, config.rounds.filter), truths)
        kept = [sample for sample in samples if sample.kept]
        own = {"images": "agreement: keep, their own masks", "share": len(kept) / len(samples)}
        rows += [{**row, **own} for row in label_rows("", kept, truths)[:1]]
        write_json(result, [{"seed": config.seed, **row} for row in rows])
    return read_json(result)


def read_scenes(config: RunConfig, run: RunFolder, out: Path, num: int) -> tuple[list[Sample], dict[str, Instances]]:
    """Rendered scenes with the attention of their captions, and the truth by their names.

    The captions are the renderer's, with the words of the run's prompts for the classes.
    """
    (pipe, _), data, rare = prepare_pipeline(config, run), out / "scenes", config.rare_classes[0]
    write_scenes(data, num, FIRST_SEED + config.seed, config.classes, rare=rare, rare_fraction=RARE_FRACTION)
    assert config.prompts is not None
    words = class_words(config.prompts)
    scenes, truths = [], {}
    for (name, image, truth), row in zip(
        read_dataset(data, "test", config.classes), read_jsonl(data / "captions.jsonl"), strict=True
    ):
        text = row["caption"]
        for kind in set(row["kinds"]):
            text = text.replace(kind, words[kind])
        phrases = (phrase.replace(kind, words[kind]) for phrase, kind in zip(row["phrases"], row["kinds"], strict=True))
        prompt = Prompt(text, tuple(map(ObjectPhrase, phrases, row["kinds"])), template=text)
        heatmap_path = out / f"heatmaps/{name}.npz"
        (attention,) = read_attention(pipe, [image], [prompt], config.generate.attention)
        attention.save(heatmap_path)
        image_path = data / f"images/test/{name}.png"
        scenes.append(Sample(name, image_path, prompt, task="txt2img", heatmap_path=heatmap_path))
        truths[name] = truth
    return scenes, truths


def label_rows(judge: str, samples: Sequence[Sample], truths: dict[str, Instances]) -> list[dict[str, Any]]:
    """Quality of the labels of all samples, of each outcome and of each reason; "share" is that of the images."""
    groups = {f"{judge}: all": list(samples)}
    for sample in sorted(samples, key=lambda sample: (sample.outcome, sample.reason)):
        groups.setdefault(f"{judge}: {sample.outcome}", []).append(sample)
        if sample.reason:
            groups.setdefault(f"{judge}: {sample.outcome} ({sample.reason})", []).append(sample)
    rows = []
    for name, group in groups.items():
        quality = label_quality((sample.instances, truths[sample.image_path.stem]) for sample in group)
        rows.append({"images": name, "share": len(group) / len(samples), **{key: quality[key] for key in QUALITY}})
    return rows


def measure_detectors(config: RunConfig, run: RunFolder, out: Path) -> list[dict[str, Any]]:
    """Rows of detectors trained on what the filter kept, on as many random images and on all, and on what it kept with
    its masks; none without later rounds that were judged by agreement."""
    judged = [
        sample
        for folder in run.complete_rounds()
        for sample in read_samples(folder.samples)
        if "detector" in sample.encoded_labels and not sample.is_photo
    ]
    kept = [sample for sample in judged if sample.kept]
    if not kept:
        print(f"seed {config.seed}: no image was kept by agreement, so there is no detector to compare")
        return []
    drawn = np.random.default_rng([config.seed, FIRST_SEED]).choice(len(judged), len(kept), replace=False)
    rules = config.rounds.filter
    arms = {
        "kept": attended(kept, rules),
        "as many at random": attended([judged[index] for index in sorted(drawn)], rules),
        "all": attended(judged, rules),
        "kept, their own masks": kept,
    }
    rows = []
    for name, arm in arms.items():
        samples = [replace(sample, reason="", split="train") for sample in arm]
        scores = samples_trained(
            config, samples, out / name.replace(", ", "_").replace(" ", "_"), steps_of(len(kept), config)
        )
        rows.append({"seed": config.seed, "trained on": name, **scores})
        print(rows[-1], flush=True)
    return rows


def attended(samples: Sequence[Sample], rules: FilterConfig) -> list[Sample]:
    """The samples with attention's labels, whoever labelled them."""
    labels = (above_threshold({"attention": sample.labels("attention")}, rules) for sample in samples)
    return [
        replace(sample, encoded=found["attention"].to_json()) for sample, found in zip(samples, labels, strict=True)
    ]


if __name__ == "__main__":
    main()
