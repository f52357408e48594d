"""Does pasting pay on photographs?
`python benchmarks/paste.py --data FOLDER --scenes PHOTOS --weights COCO.pt --json FILE [--labelled 8 4] [--seeds 3]`

FOLDER is that of `benchmarks/photographs.py`; PHOTOS are photographs without its class, in place of generated scenes.
Each seed deals the photos anew. The detector is fine-tuned for as many steps on the labelled photos alone, repeated,
and with as many pasted images as repeated ones: with exact masks, and with masks as coarse as attention's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from comparison import repeated
from consensus import coarse
from photographs import config_of, deal, options, trained_on

from bootstrap.pasting import plan_pastes
from bootstrap.training_set import written
from diffugen.datasets.folder import read_dataset, write_dataset
from diffugen.files import write_json
from diffugen.images import list_images, read_image
from diffugen.instances import Instances
from diffugen.sample import Sample
from train_loop import RunConfig

REPEATS = 8
"""Of a photo; with pasting, half of them are pasted."""


def main() -> None:
    parser = options(__doc__, Path("runs/benchmark/paste"))
    parser.add_argument("--scenes", type=Path, required=True, help="folder of photographs without the class")
    parser.set_defaults(rounds=1)
    args = parser.parse_args()
    scenes = [
        Sample.labelled(path.stem, path, Instances.empty(read_image(path).shape[:2]), "train")
        for path in list_images(args.scenes, what="--scenes")
    ]
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for number in args.labelled:
            folder = deal(args.data, args.out / f"seed{seed}_labelled{number}", number, seed)
            config = config_of(args, seed, folder)
            rows.append({"seed": seed, "labelled": number, **measure(config, folder, scenes)})
            write_json(args.json, rows)
            print(rows[-1], flush=True)


def measure(config: RunConfig, folder: Path, scenes: Sequence[Sample]) -> dict[str, float | None]:
    """mAP50-95 of each way to train on the labelled photos."""
    photos = [
        replace(Sample.labelled(name, folder / "labelled/images/train" / f"{name}.png", found, "train"), task="photo")
        for name, _, found in read_dataset(folder / "labelled", "train")
    ]
    figures: dict[str, float | None] = {}
    for masks, own in {"exact": photos, "coarse": [made_coarse(photo) for photo in photos]}.items():
        drawn = [replace(scene, task="txt2img") for scene in scenes]
        pastes = plan_pastes([*own, *drawn], range(len(config.classes)), REPEATS // 2, config.seed)
        ways = {
            "repeated": repeated(own, REPEATS),
            "half of them pasted": list(written(repeated(own, REPEATS // 2), pastes)),
        }
        for way, images in ways.items():
            figures[f"{masks} masks, {way}"] = trained(config, folder, f"{masks} {way}", images)
    return figures


def made_coarse(photo: Sample) -> Sample:
    """The photo with masks as coarse as attention's."""
    found = photo.instances
    masks = np.array([coarse(mask) for mask in found.masks]).reshape(found.masks.shape)
    kept = Instances.from_masks(masks, found.class_ids).subset(masks.any((1, 2)))
    return replace(photo, encoded=kept.to_json())


def trained(config: RunConfig, folder: Path, name: str, images: Sequence[Sample]) -> float | None:
    """`trained_on` of images."""
    if not (folder / f"{name}.pt").is_file():
        write_dataset(folder / name, images, config.classes)
    return trained_on(config, folder, name)


if __name__ == "__main__":
    main()
