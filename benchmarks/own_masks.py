"""May the photos' own masks take the place of drawn ones? `python benchmarks/own_masks.py --json FILE [--out DIR]`

On the runs that `benchmarks/loop.py` left in DIR: a decoder of the UNet's features (`diffugen.labelers.train_decoder`)
is trained on the photos as round 0 labelled them, and labels the generated images of the rare object in place of
attention. Mean IoU of the rare object's labels with those of the bound, a detector trained on rendered truth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import mean_and_std, options, seeded_configs

from bootstrap.labelers import attention_labeler, detector_labeler
from bootstrap.run_folder import RunFolder
from diffugen.attention.decoder import save_decoder
from diffugen.attention.extract import read_attention
from diffugen.files import write_json
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.labelers.train_decoder import train_decoder
from diffugen.masks.matching import mask_iou
from diffugen.sample import Sample, read_samples
from train_loop import RunConfig, prepare_pipeline

STEPS = 300


def main() -> None:
    args = options(__doc__, Path("runs/benchmark")).parse_args()
    rows = []
    for config in seeded_configs(args):
        rows.append({"seed": config.seed, **measure_seed(config, args.out / config.name / f"seed_{config.seed}")})
        print(rows[-1], flush=True)
        mean = {key: mean_and_std([row[key] for row in rows]) for key in rows[0] if key != "seed"}
        write_json(args.json, {"rows": rows, "mean": mean})


def measure_seed(config: RunConfig, out: Path) -> dict[str, Any]:
    """Mean IoU of the labels of one seed's generated images, by who labels."""
    run, pool = RunFolder(out / "loop"), config.pool
    assert pool is not None
    rare = config.classes.index(config.rare_classes[0])
    samples = [sample for folder in run.complete_rounds() for sample in read_samples(folder.samples)]
    photos = [sample for sample in read_samples(run.round(0).samples) if sample.is_photo and sample.kept]
    generated = [sample for sample in samples if not sample.is_photo and sample.kept and rare in sample.class_ids]
    truth = detector_labeler(out / "bound" / "best.pt", config)
    found = [truth.label([LabelInput(sample.pixels())])[0] for sample in generated]
    pipe, config = prepare_pipeline(config, run)
    assert pipe is not None
    drawn = [(photo.pixels(), photo.instances) for photo in photos]
    with tempfile.TemporaryDirectory() as folder:
        decoder = Path(folder) / "decoder.safetensors"
        save_decoder(train_decoder(pipe, drawn, pool.prompts[0], STEPS, config.seed), decoder, {})
        attention = config.generate.attention
        ways = {"attention, read": attention, "decoder": attention.model_copy(update={"decoder": decoder})}
        labels = {name: read_labels(pipe, config, generated, settings) for name, settings in ways.items()}
    labels["attention, generating"] = [sample.instances for sample in generated]
    return {"num_images": len(generated), **ious(labels, found, rare)}


def read_labels(pipe: Any, config: RunConfig, samples: Sequence[Sample], attention: Any) -> list[Instances]:
    """Labels of images that are read in one pass with their prompts."""
    images = [sample.pixels() for sample in samples]
    read = read_attention(pipe, images, [sample.prompt for sample in samples], attention)
    inputs = [LabelInput(image, one.prompt, own) for image, one, own in zip(images, samples, read, strict=True)]
    return attention_labeler(config).label(inputs)


def ious(labels: Mapping[str, Sequence[Instances]], truth: Sequence[Instances], rare: int) -> dict[str, float]:
    """Mean IoU of each rare object that the truth-trained detector finds with its best label; 0 without one."""
    means = {}
    for name, found in labels.items():
        own = []
        for one, true in zip(found, truth, strict=True):
            masks = one.masks[one.class_ids == rare]
            own += [float(mask_iou(masks, mask[None]).max(initial=0)) for mask in true.masks[true.class_ids == rare]]
        means[name] = float(np.mean(own))
    return means


if __name__ == "__main__":
    main()
