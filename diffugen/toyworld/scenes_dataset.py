"""Rendered scenes as a labelled dataset with exact masks: truth to measure against, or to train on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diffugen.command_line import path_option
from diffugen.datasets.folder import write_dataset
from diffugen.errors import UserError
from diffugen.files import write_jsonl
from diffugen.instances import Instances
from diffugen.outputs import new_output
from diffugen.progress import progress_bar
from diffugen.sample import Sample
from diffugen.toyworld.captions import caption_with_phrases
from diffugen.toyworld.render import Rendered, render
from diffugen.toyworld.scene import COMMON_KINDS, RARE_KINDS, TRAINING_KINDS, sample_scene

_SEED_STRIDE = 1_000_003  # datasets of different seeds share no scene, as long as they are smaller than this


def write_scenes(
    out: Path,
    num: int,
    seed: int,
    class_names: Sequence[str],
    *,
    rare: str | None = None,
    rare_fraction: float = 2 / 3,
    size_hw: tuple[int, int] = (128, 128),
    split: str = "test",
    distractor_fraction: float = 0.0,
    twin_fraction: float = 0.0,
    progress: bool = True,
) -> Path:
    """Render scenes of the given classes into a dataset folder, with their words and attributes in captions.jsonl.

    Args:
        out: the dataset's folder.
        num: number of scenes.
        seed: scenes of different seeds differ.
        class_names: kinds that are drawn and labelled, in the order of their class ids.
        rare: a kind of `class_names` that stands in `rare_fraction` of the scenes and in no other.
        rare_fraction: share of the scenes with the rare kind.
        size_hw: pixels.
        split: the dataset's only split.
        distractor_fraction: share of the scenes with an unlabelled object of some other kind, in half of them
            with nothing else.
        twin_fraction: share of the scenes that show one kind twice.

    With all training kinds as `class_names`, kinds are as frequent as in the training of the toy world's models.

    Raises:
        UserError: an argument is out of range, or the folder is not empty and not of this command.
    """
    _check(num, class_names, rare, rare_fraction)
    rng = np.random.default_rng([seed, 21])
    order = rng.permutation(num)  # which scenes show the rare kind
    num_rare = round(num * rare_fraction) if rare else 0
    captions = []

    def samples() -> Iterator[Sample]:
        for i in progress_bar(range(num), desc=f"scenes {split}", disable=not progress):
            rendered = _scene(
                seed * _SEED_STRIDE + i,
                class_names,
                rare,
                bool(order[i] < num_rare),
                distractor_fraction,
                twin_fraction,
                size_hw,
            )
            name = f"{i:05d}"
            text, phrases = caption_with_phrases(rendered.scene, seed=i)
            captions.append(
                {
                    "name": name,
                    "caption": text,
                    "phrases": list(phrases),
                    "kinds": [o.kind for o in rendered.scene.objects],
                    "attributes": {name: getattr(rendered.scene, name) for name in ("place", "time", "weather")},
                }
            )
            instances, provenance = labels(rendered, class_names), {"scene": rendered.scene.seed}
            yield Sample.labelled(name, rendered.image, instances, split, provenance)

    with new_output(Path(out), "toyworld.scenes_dataset") as folder:
        write_dataset(folder, samples(), class_names)
        write_jsonl(folder / "captions.jsonl", captions)
    return Path(out)


def labels(rendered: Rendered, class_names: Sequence[str]) -> Instances:
    """The exact instances of a scene's objects; kinds that are not in `class_names` go unlabelled."""
    kinds = [thing.kind for thing in rendered.scene.objects]
    known = [i for i, kind in enumerate(kinds) if kind in class_names and rendered.masks[i].any()]
    return Instances.from_masks(rendered.masks[known], [class_names.index(kinds[i]) for i in known])


def _scene(
    seed: int,
    class_names: Sequence[str],
    rare: str | None,
    shows_rare: bool,
    distractors: float,
    twins: float,
    size_hw: tuple[int, int],
) -> Rendered:
    others = [name for name in class_names if name != rare]
    kinds = None if others == list(TRAINING_KINDS) else others or COMMON_KINDS
    required = [rare] if rare and shows_rare else []
    rng = np.random.default_rng([seed, 22])
    num_objects = None
    if rng.random() < distractors:
        pool = [kind for kind in TRAINING_KINDS if kind not in class_names]
        required = [*required, pool[int(rng.integers(len(pool)))]]
        num_objects = len(required) if rng.random() < 0.5 else None  # half of them show nothing else
    if twins and rng.random() < twins:
        required = [others[int(rng.integers(len(others)))]] * 2
    scene = sample_scene(seed, kinds=kinds, required_kinds=required, num_objects=num_objects)
    return render(scene, size_hw)


def _check(num: int, class_names: Sequence[str], rare: str | None, rare_fraction: float) -> None:
    known = set(TRAINING_KINDS) | set(RARE_KINDS)
    unknown = [name for name in class_names if name not in known]
    if num < 1:
        raise UserError(f"num={num} is out of range; ask for at least one scene")
    if unknown:
        raise UserError(
            f"classes: {unknown[0]!r} is no kind of the toy world; use {', '.join(COMMON_KINDS + RARE_KINDS)}"
        )
    if rare is not None and rare not in class_names:
        raise UserError(f"rare={rare!r} is not among the classes {', '.join(class_names)}; add it to them")
    if not 0 <= rare_fraction <= 1:
        raise UserError(f"rare_fraction={rare_fraction} is out of range; use 0 to 1")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m diffugen.toyworld.scenes_dataset`."""
    parser = argparse.ArgumentParser(description="Render scenes with exact masks into a dataset (YOLO-seg and COCO).")
    parser.add_argument("--out", type=path_option, required=True, help="the dataset's folder")
    parser.add_argument("--num", type=int, default=300, help="number of scenes (default: 300)")
    parser.add_argument("--seed", type=int, required=True, help="scenes of different seeds differ")
    parser.add_argument(
        "--classes",
        required=True,
        help="comma-separated kinds, in the order of their class ids; or 'training': all but the rare ones",
    )
    parser.add_argument("--twin-fraction", type=float, default=0.0, help="scenes that show one kind twice (default: 0)")
    parser.add_argument("--rare", help="the class that stands in --rare-fraction of the scenes and in no other")
    parser.add_argument("--rare-fraction", type=float, default=2 / 3, help="(default: two thirds)")
    parser.add_argument("--size", default="128", help="pixels: one number, or HEIGHTxWIDTH (default: 128)")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="(default: test)")
    args = parser.parse_args(arguments)
    try:
        height, _, width = args.size.partition("x")
        size_hw = (int(height), int(width or height))
        class_names = list(TRAINING_KINDS) if args.classes == "training" else args.classes.split(",")
        write_scenes(
            args.out, args.num, args.seed, class_names,
            rare=args.rare, rare_fraction=args.rare_fraction, size_hw=size_hw, split=args.split,
            twin_fraction=args.twin_fraction,
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    print(f"{args.num} scenes in {args.out}")


if __name__ == "__main__":
    main()
