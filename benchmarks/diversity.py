"""Do various prompts pay? `python benchmarks/diversity.py --json FILE [--seeds N] [--num-images N]`

The paper's open question: prompt diversity against label accuracy. One first round per level of diversity, from one
template with one value for everything up to all that the config has, with the same concept and as many images:
- label IoU: of the kept images' labels with those of a detector trained on rendered scenes with exact masks; generated
  images have no truth, so this judge, the same for all levels, stands in for it;
- Vendi score and share of near-duplicates of the generated images;
- the rare class's mask AP on the config's evaluation set, of detectors trained on as many kept images of every level
  for as many steps. The config's pool is left out.
Finished parts are not made again, so the command can be stopped and given again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import (
    first_round,
    markdown,
    mean_rows,
    options,
    samples_trained,
    seeded_configs,
    steps_of,
    truth_trained,
)

from bootstrap.labelers import detector_labeler
from bootstrap.measures.round import measure_images
from bootstrap.run_folder import RunFolder
from bootstrap.stages import validation_agreement
from diffugen.config.settings import PromptsConfig
from diffugen.files import write_json
from diffugen.sample import Sample
from train_loop import RunConfig, prepare_pipeline

LEVELS: dict[str, tuple[int | None, int | None]] = {
    "one template, one value": (1, 1),
    "all templates, one value": (None, 1),
    "all templates, three values": (None, 3),
    "everything": (None, None),
}
"""Level -> how many templates, and how many values of every attribute and phrases of every class; None: all."""
COLUMNS = {
    "prompts": "num_prompts",
    "images kept": "num_kept",
    "label IoU": "label_iou",
    "Vendi score": "vendi_score",
    "near-duplicates": "near_duplicate_fraction",
    "mask mAP50": "mask_map50",
    "mask mAP50-95": "mask_map50_95",
}


def main() -> None:
    args = options(__doc__, Path("runs/benchmark/diversity")).parse_args()
    rows: list[dict[str, Any]] = []
    for config in seeded_configs(args, "rounds.num_rounds=1", "pool=null"):
        rows += measure_seed(config, RunFolder((args.out / config.name / f"seed_{config.seed}").resolve()))
        write_json(args.json, {"config": args.config.name, "rows": rows, "table": mean_rows(rows, "level")})
    print(markdown(mean_rows(rows, "level"), "level", COLUMNS))


def measure_seed(config: RunConfig, run: RunFolder) -> list[dict[str, Any]]:
    """A row per level; the concept is learned once, in the run folder."""
    with run.locked():
        config = run.resumed(config)
        pipe, config = prepare_pipeline(config, run)
        assert config.prompts is not None
        num_images = config.rounds.num_images
        truth_trained(config, run.path / "judge", num_images, steps_of(num_images, config))
        rounds = {}
        for name, (num_templates, num_values) in LEVELS.items():
            level = config.model_copy(update={"prompts": narrowed(config.prompts, num_templates, num_values)})
            rounds[name] = first_round(level, pipe, level_folder(run, name))
        num_trained = min(sum(sample.kept for sample in samples) for samples in rounds.values())
        rows = []
        for name, samples in rounds.items():
            scores = measure_level(config, samples, run, level_folder(run, name), num_trained)
            rows.append({"level": name, "seed": config.seed, **scores})
            print(rows[-1], flush=True)
    return rows


def measure_level(
    config: RunConfig, samples: Sequence[Sample], run: RunFolder, folder: RunFolder, num_trained: int
) -> dict[str, float | None]:
    """Prompts, labels and images of a level, and the detector trained on `num_trained` of its kept images."""
    kept = [sample for sample in samples if sample.kept]
    drawn = np.random.default_rng(config.seed).choice(len(kept), num_trained, replace=False)
    blind = config.model_copy(update={"evaluation": None})  # else its images would be embedded for every level
    images = measure_images(samples, blind, photos=())
    return {
        "num_prompts": len({sample.prompt.text for sample in samples}),
        "num_kept": len(kept),
        "label_iou": validation_agreement(kept, detector_labeler(run.path / "judge/best.pt", config))[0],
        "vendi_score": images["images/vendi_score"],
        "near_duplicate_fraction": images["images/near_duplicate_fraction"],
        **samples_trained(
            config, [kept[index] for index in sorted(drawn)], folder.path / "detector", steps_of(num_trained, config)
        ),
    }


def narrowed(prompts: PromptsConfig, num_templates: int | None, num_values: int | None) -> PromptsConfig:
    """The first templates with the first values of every attribute and phrases of every class."""

    def first(values: Any) -> Any:
        return dict(list(values.items())[:num_values]) if isinstance(values, Mapping) else values[:num_values]

    return prompts.model_copy(
        update={
            "templates": prompts.templates[:num_templates],
            "objects": {
                slot: {name: first(phrases) for name, phrases in classes.items()}
                for slot, classes in prompts.objects.items()
            },
            "attributes": {slot: first(values) for slot, values in prompts.attributes.items()},
        }
    )


def level_folder(run: RunFolder, name: str) -> RunFolder:
    return RunFolder(run.path / name.replace(", ", "_").replace(" ", "_"))


if __name__ == "__main__":
    main()
