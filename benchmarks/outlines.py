"""What do outliners make of masks on photographs? `python benchmarks/outlines.py --data FOLDER --weights COCO.pt`

FOLDER is a labelled dataset of photos, such as some of COCO. Each object's mask is made coarse in two ways, as
attention's are, or is the one that the detector finds; then every outliner draws its outline. Mean IoU with the
truth. Further ones: `--outliner WEIGHTS` (of `python -m diffugen.labelers.train_outliner`), `--sam MODEL`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from diffugen.config.settings import AttentionLabelConfig, OutlineConfig
from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.labelers.base import LabelInput
from diffugen.labelers.detector import DetectorLabeler
from diffugen.labelers.outlining import load_outliner
from diffugen.masks.matching import match_instances
from diffugen.masks.outline.base import OutlinePrompt

MIN_AREA = 0.02
"""Smaller objects are no prompt of a grid this coarse."""

Start = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""How a mask was made coarse, the image, the mask, and the truth."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled dataset of photos")
    parser.add_argument("--weights", type=Path, required=True, help="a detector of its classes")
    parser.add_argument("--split", default="val", help="(default: val)")
    parser.add_argument("--outliner", type=Path, help="weights of a learned outliner")
    parser.add_argument("--sam", help="folder or hub id of a SAM, SAM-HQ, SAM 2 or SAM 3")
    args = parser.parse_args()
    configs = {name: OutlineConfig(method=name) for name in ("none", "grabcut")}
    if args.outliner is not None:
        configs["learned"] = OutlineConfig(method="learned", model=str(args.outliner))
    if args.sam is not None:
        configs["sam"] = OutlineConfig(method="sam", model=args.sam)
    outliners = {name: load_outliner(AttentionLabelConfig(outline=config)) for name, config in configs.items()}
    found: dict[tuple[str, str], list[float]] = {}
    for start, image, mask, truth in starts(args.data, args.split, args.weights):
        for name, outliner in outliners.items():
            (outline,) = outliner.outline(image, [OutlinePrompt(mask[None])])
            found.setdefault((start, name), []).append(iou(outline.mask, truth))
    for (start, name), ious in found.items():
        print(f"{start:<40}{name:<10}{np.mean(ious):.3f}  of {len(ious)} objects")


def starts(data: Path, split: str, weights: Path) -> Iterator[Start]:
    """Coarse masks of all objects that are large enough, and the detector's own of those that it finds."""
    names, rng = class_names_of(data), np.random.default_rng(0)
    detector = DetectorLabeler(weights, names)
    for _, image, truth in read_dataset(data, split, names):
        for mask in truth.masks[truth.masks.mean(axis=(1, 2)) >= MIN_AREA]:
            for grid, noise in ((12, 0.2), (24, 0.0)):
                coarse = coarsened(mask, grid, noise, rng)
                if coarse.any():
                    yield f"grid of {grid}x{grid}, noise {noise:g}", image, coarse, mask
        (found,) = detector.label([LabelInput(image)])
        for index, number in match_instances(found, truth, iou_threshold=0.3).pairs:
            yield "the detector's own", image, found.masks[index], truth.masks[number]


def coarsened(mask: np.ndarray, grid: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A mask as a map of `grid` by `grid` cells would have it."""
    height, width = mask.shape
    cells = cv2.resize(mask.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    cells = cells + noise * rng.standard_normal(cells.shape)
    return cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) > 0.5


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


if __name__ == "__main__":
    main()
