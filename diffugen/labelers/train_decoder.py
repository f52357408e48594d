"""Learn to label from a few drawn masks: `python -m diffugen.labelers.train_decoder --data DATASET --model PIPELINE`.

DATASET holds one to some ten images, the user's own or generated, whose objects were drawn (in Label Studio, or any
tool whose format `diffugen label` reads). PIPELINE is the diffusion model that will label. The result is a
file for `generate.attention.decoder`, or `diffugen label --decoder`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffugen.attention.decoder import PixelDecoder, save_decoder
from diffugen.attention.features import num_features, read_features
from diffugen.command_line import path_option, run_command
from diffugen.config.loader import validate
from diffugen.config.settings import ModelConfig
from diffugen.datasets.folder import check_split, class_names_of, read_dataset
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.photo_attention import caption_prompt
from diffugen.progress import progress_bar
from diffugen.prompts.prompt import Prompt

log = logging.getLogger(__name__)

_RATE, _WEIGHT_DECAY, _DROPOUT, _BATCH = 1e-3, 0.05, 0.3, 256
_SEEDS = (0, 1)
"""Of the noise with which each image is read: a decoder that knew one noise would mistrust others."""


def train_decoder(
    pipe: Pipeline, drawn: Sequence[tuple[np.ndarray, Instances]], prompt: Prompt, steps: int, seed: int = 0
) -> PixelDecoder:
    """Train an ensemble of pixel classifiers on drawn masks; images are read as they are and mirrored.

    Args:
        pipe: the pipeline whose features are read.
        drawn: image uint8 RGB [H, W, 3], and all of its objects; class ids index the classes of `prompt`'s objects.
        prompt: the images' caption.
        steps: of each classifier.
        seed: of all that is random.
    """
    class_names = list(dict.fromkeys(phrase.class_name for phrase in prompt.objects))
    pixels, targets = (
        torch.cat(parts) for parts in zip(*_examples(pipe, drawn, prompt, len(class_names)), strict=True)
    )
    decoder = PixelDecoder(num_features(pipe.unet), class_names).to(pixels.device)
    decoder.mean.copy_(pixels.mean(0))
    decoder.std.copy_(pixels.std(0).clamp(min=1e-6))
    with progress_bar(total=len(decoder.members) * steps, desc="decoder", unit="step") as bar:
        for number, member in enumerate(decoder.members):
            torch.manual_seed(seed + number)
            for layer in member:
                if isinstance(layer, torch.nn.Linear):
                    layer.reset_parameters()
            optimizer = torch.optim.AdamW(member.parameters(), _RATE, weight_decay=_WEIGHT_DECAY)
            for _ in range(steps):
                chosen = torch.randint(len(pixels), (_BATCH,)).to(pixels.device)
                inputs = (pixels[chosen] - decoder.mean) / decoder.std
                # whole features are dropped, for all pixels alike, so that the members rely on different ones
                inputs = F.dropout(torch.ones_like(inputs[:1]), _DROPOUT) * inputs
                loss = F.cross_entropy(member(inputs), targets[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
    return decoder.eval()


def _examples(
    pipe: Pipeline, drawn: Sequence[tuple[np.ndarray, Instances]], prompt: Prompt, num_classes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features [pixels, channels] of each image and its mirrored view, and the share of each class [pixels, 1 + n]."""
    for image, instances in drawn:
        small = at_most_native(image, pipe)
        for mirrored in (False, True):
            view = np.ascontiguousarray(small[:, ::-1]) if mirrored else small
            for seed in _SEEDS:
                (features,) = read_features(pipe, [view], [prompt], seed=seed)
                shares = class_shares(instances, num_classes, (features.shape[1], features.shape[2]))
                shares = shares[:, :, ::-1].copy() if mirrored else shares
                yield features.flatten(1).T, torch.from_numpy(shares).flatten(1).T.to(features.device)


def class_shares(instances: Instances, num_classes: int, size_hw: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a grid each class covers, the background first: float32 [1 + classes, h, w]."""
    height, width = instances.size_hw
    covered = np.zeros((1 + num_classes, height, width), np.float32)
    for mask, class_id in zip(instances.masks, instances.class_ids, strict=True):
        covered[:, mask] = 0  # of objects that overlap the last counts
        covered[1 + class_id, mask] = 1
    covered[0] = 1 - covered[1:].sum(0)
    return F.interpolate(torch.from_numpy(covered)[None], size_hw, mode="area")[0].numpy()


def read_drawn(folder: Path, split: str, class_names: Sequence[str]) -> list[tuple[np.ndarray, Instances]]:
    """The images of a dataset with what was drawn in them.

    Raises:
        UserError: a class is not the dataset's, or nothing of it is drawn.
    """
    known = class_names_of(folder)
    if absent := [name for name in class_names if name not in known]:
        raise UserError(
            f"--object: class {absent[0]!r} is not one of {folder}, which has {', '.join(known)}; name one of these"
        )
    drawn = [(image, found) for _, image, found in read_dataset(folder, split, class_names)]
    present = {class_id for _, found in drawn for class_id in found.class_ids.tolist()}
    if absent := [name for index, name in enumerate(class_names) if index not in present]:
        raise UserError(
            f"--data {folder}: no mask of {absent[0]!r} in split {split!r}; draw one, or give another split"
        )
    return drawn


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = argparse.ArgumentParser(
        prog="python -m diffugen.labelers.train_decoder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "--data", type=path_option, required=True, help="dataset with the drawn masks (YOLO-seg, COCO, ...)"
    )
    found.add_argument("--split", help="of the dataset (default: train)")
    found.add_argument("--model", required=True, help="pipeline folder, .safetensors file or hub id")
    found.add_argument(
        "--embeddings", type=path_option, action="append", default=[], metavar="FILE", help="learned token; repeatable"
    )
    found.add_argument(
        "--object", action="append", default=[], metavar="CLASS=WORDS", help="what was drawn, and its words; repeatable"
    )
    found.add_argument("--prompt", metavar="TEXT", help="caption with these words (default: a photo of a WORDS)")
    found.add_argument("--out", type=path_option, required=True, help="where the decoder goes (.safetensors)")
    found.add_argument("--steps", type=int, default=300, help="of each of the five classifiers (default: %(default)s)")
    found.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda:0' (default: %(default)s)")
    found.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the model")
    found.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read features, then train."""
    args = parser().parse_args(arguments)
    logging.getLogger().setLevel(logging.INFO)
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out {args.out} must end in .safetensors; give another name")
    if args.steps < 1:
        raise UserError(f"--steps is {args.steps}, but must be at least 1")
    prompt = caption_prompt(args.object, args.prompt)
    class_names = list(dict.fromkeys(phrase.class_name for phrase in prompt.objects))
    check_split(args.data, args.split)
    drawn = read_drawn(args.data, args.split or "train", class_names)
    model = {
        "path": args.model,
        "dtype": args.dtype,
        "device": args.device,
        "embeddings": list(map(str, args.embeddings)),
    }
    pipe = load_pipeline(validate(model, ModelConfig))
    decoder = train_decoder(pipe, drawn, prompt, args.steps, args.seed)
    record = {
        "data": args.data.name,
        "images": len(drawn),
        "model": Path(args.model).name,
        "prompt": prompt.text,
        "steps": args.steps,
        "seed": args.seed,
    }
    save_decoder(decoder, args.out, record)
    log.info("%d images of %s: %s", len(drawn), ", ".join(class_names), args.out)


if __name__ == "__main__":
    sys.exit(run_command(main, "train_decoder"))
