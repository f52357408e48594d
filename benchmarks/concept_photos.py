"""How many photos does a concept need? `python benchmarks/concept_photos.py --json FILE [--seeds N] [--num-images N]`

For 1, 3, 6 and 12 photos, with the embedding alone and with a LoRA beside it: the rare class's mask AP of a first
round's detector on the config's evaluation set. Every seed has photos of its own; fewer photos are the first of more.
Where the config has a pool, it is the same photos. All cells of a seed have the same prompts, image seeds, copies of
photos and steps of the detector; how many images the filter keeps is a result. Finished parts are not made again, so
the command can be stopped and given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comparison import first_round, markdown, mean_rows, options, samples_trained, seeded_configs, steps_of

from bootstrap.run_folder import RunFolder
from diffugen.files import read_json, write_json
from diffugen.toyworld.photos import write_photos
from train_loop import RunConfig, prepare_pipeline

FIRST_PHOTO_SEED = 880_000  # of the demo's own photos, which are seed 0's first six
COPIES = 48
"""Of all photos together among the training images."""
COLUMNS = {"images kept": "num_kept", "mask mAP50": "mask_map50", "mask mAP50-95": "mask_map50_95"}


def main() -> None:
    parser = options(__doc__, Path("runs/benchmark/concept-photos"))
    parser.add_argument("--photos", type=int, nargs="+", default=(1, 3, 6, 12), help="numbers of photos")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for config in seeded_configs(args, "rounds.num_rounds=1"):
        for num_photos in args.photos:
            for lora in (False, True):
                rows.append(measure(config, num_photos, lora, args.out / config.name / f"seed_{config.seed}"))
                print(rows[-1], flush=True)
                write_json(args.json, {"config": args.config.name, "rows": rows, "table": mean_rows(rows, "concept")})
    print(markdown(mean_rows(rows, "concept"), "concept", COLUMNS))


def measure(config: RunConfig, num_photos: int, lora: bool, out: Path) -> dict[str, Any]:
    """The detector of a first round with a concept from `num_photos` photos."""
    name = f"{num_photos} photo{'s' * (num_photos > 1)}{', LoRA' * lora}"
    run = RunFolder((out / name.replace(", ", "_").replace(" ", "_")).resolve())
    steps = steps_of(config.rounds.num_images + COPIES, config)
    config = with_photos(config, num_photos, lora, out.resolve())
    with run.locked():
        config = run.resumed(config)
        if not (result := run.path / "row.json").is_file():
            samples = first_round(config, prepare_pipeline(config, run)[0], run)
            kept = sum(sample.kept and not sample.is_photo for sample in samples)
            repeats = max(1, round(COPIES / num_photos))
            scores = samples_trained(config, samples, run.path / "detector", steps, repeats)
            write_json(result, {"concept": name, "seed": config.seed, "num_kept": kept, **scores})
    return read_json(result)


def with_photos(config: RunConfig, num_photos: int, lora: bool, out: Path) -> RunConfig:
    """The config with other photos, of its concept and its pool alike."""
    (concept,) = config.concept
    photos = out / f"photos_{num_photos}"
    write_photos(concept.placeholder_token.strip("<>"), photos, num_photos, FIRST_PHOTO_SEED + 1_000 * config.seed)
    changes = {"photos": photos, "lora_rank": 4 if lora else None}
    update: dict[str, Any] = {"concept": (concept.model_copy(update=changes),)}
    if config.pool is not None:
        update["pool"] = config.pool.model_copy(update={"folder": photos})
    return config.model_copy(update=update)


if __name__ == "__main__":
    main()
