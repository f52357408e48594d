"""What should be the mask of several labelers? `python benchmarks/consensus.py --data FOLDER --weights COCO.pt`

FOLDER is a labelled dataset of photos, such as some of COCO. Each object that the detector finds with and without
mirroring has three views: its two masks, and the true one blurred to 24x24, as coarse as attention's. Mean IoU with the
truth of their vote, at the photo's size and at that of cuts, and of cuts where the colours' evidence reaches a bar.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from bootstrap.labelers import MirroredLabeler
from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.labelers.base import LabelInput
from diffugen.labelers.detector import DetectorLabeler
from diffugen.masks.graph_cut import clear_cut
from diffugen.masks.matching import match_instances
from diffugen.masks.outline.base import OutlinePrompt
from diffugen.masks.refinement import WORKING_SIDE, at_most, resize_masks

BARS = (0.0, 6.0, 9.0, 11.0, 15.0)
"""Nats, see `clear_cut`."""
COARSE = (24, 24)
VIEWS = {"detector, attention, mirrored": (0, 2, 1), "detector, mirrored": (0, 1)}

Object = tuple[np.ndarray, list[np.ndarray], np.ndarray]
"""An image, the views of an object in it, and its true mask."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled dataset of photos")
    parser.add_argument("--weights", type=Path, required=True, help="a detector of its classes")
    parser.add_argument("--split", default="val", help="(default: val)")
    args = parser.parse_args()
    objects = list(seen_twice(args.data, args.split, args.weights))
    for name, order in VIEWS.items():
        print(f"{name}, {len(objects)} objects")
        for rule, iou in measure([(image, [views[k] for k in order], mask) for image, views, mask in objects]).items():
            print(f"  {rule:<45}{iou:.3f}")


def seen_twice(data: Path, split: str, weights: Path) -> Iterator[Object]:
    """The objects that the detector finds with and without mirroring, with three views."""
    names = class_names_of(data)
    detector = DetectorLabeler(weights, names)
    mirrored = MirroredLabeler(detector)
    for _, image, truth in read_dataset(data, split, names):
        (found,), (again,) = (labeler.label([LabelInput(image)]) for labeler in (detector, mirrored))
        true = match_instances(found, truth, iou_threshold=0.3, same_class=True)
        pairs = match_instances(found, again, iou_threshold=0.3, same_class=True).pairs
        partners = {int(index): int(other) for index, other in pairs}
        for index, number in true.pairs:
            if int(index) in partners:
                mask = truth.masks[number]
                yield image, [found.masks[index], again.masks[partners[int(index)]], coarse(mask)], mask


def coarse(mask: np.ndarray) -> np.ndarray:
    """A mask as it looks at the resolution of attention."""
    small = cv2.resize(mask.astype(np.float32), COARSE, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def measure(objects: Sequence[Object]) -> dict[str, float]:
    """Mean IoU with the truth by rule."""
    ious: dict[str, list[float]] = {}
    for image, views, truth in objects:
        vote = OutlinePrompt(np.stack(views)).majority
        small = at_most(image, WORKING_SIDE)
        shrunk = resize_masks(np.stack(views), small.shape[:2])
        masks = {"vote": vote, f"vote at {WORKING_SIDE} px": enlarged(OutlinePrompt(shrunk).majority, truth)}
        for bar in BARS:
            cut = clear_cut(small, shrunk, bar)
            masks[f"cut from {bar:g} nats, else the vote"] = vote if cut is None else enlarged(cut, truth)
        for rule, mask in masks.items():
            ious.setdefault(rule, []).append(float((mask & truth).sum() / max(1, (mask | truth).sum())))
    return {rule: float(np.mean(own)) for rule, own in ious.items()}


def enlarged(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A mask at the size of another."""
    return resize_masks(mask[None], like.shape[:2])[0]


if __name__ == "__main__":
    main()
