"""Train the learned outliner: `python -m diffugen.labelers.train_outliner --data DATASET --model PIPELINE --out FILE`.

DATASET is any labelled dataset of common things, PIPELINE any Stable Diffusion model; the classes that are to be found
later need not be in it. First attention is read from the images with their captions, then a small network without
classes learns to outline what a prompt means: attention, coarse masks, several labelers' masks, boxes. Started again
with the same arguments, both go on where they were stopped.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import logging
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from diffugen.command_line import path_option, run_command
from diffugen.config.loader import validate
from diffugen.config.settings import AttentionConfig, AttentionLabelConfig, ModelConfig
from diffugen.datasets.folder import class_names_of
from diffugen.devices import pick_device
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.errors import UserError
from diffugen.files import atomic_path
from diffugen.labelers.outliner_examples import KINDS, Example, draw_example
from diffugen.labelers.outliner_readings import readings
from diffugen.lock import locked
from diffugen.masks.outline.network import OutlineNet, load_network, save_network

log = logging.getLogger(__name__)

_PEAK_RATE, _WARMUP, _WEIGHT_DECAY = 3e-3, 0.05, 0.01
_IOU_WEIGHT = 0.2
_AVERAGED = 0.998  # share of the moving average of the weights that each step keeps
_HELD_OUT, _VALIDATION = 0.04, 96  # share of the images; examples per kind of prompt


def train(
    paths: Sequence[Path],
    out: Path,
    work: Path,
    record: dict[str, Any],
    *,
    steps: int,
    batch_size: int,
    save_every: int,
    device: torch.device,
    seed: int,
    start: OutlineNet | None = None,
) -> None:
    """Train on readings until `steps` were done; the weights and their record go to `out`, checkpoints to `work`.

    What is written is the moving average of the weights (Polyak and Juditsky 1992). From `start`, weights that were
    trained before, training goes on at half the rate, and half of what is written is these (WiSE-FT, Wortsman et al.
    2022).
    """
    torch.manual_seed(seed)
    held_out = max(1, round(_HELD_OUT * len(paths)))
    learnt, unseen = paths[held_out:] or paths, paths[:held_out]
    network = OutlineNet() if start is None else copy.deepcopy(start)
    network = network.to(device, memory_format=torch.channels_last)
    average = AveragedModel(network, multi_avg_fn=_average_of, use_buffers=True)
    peak = _PEAK_RATE if start is None else _PEAK_RATE / 2
    optimizer = torch.optim.AdamW(network.parameters(), peak, weight_decay=_WEIGHT_DECAY)
    state = {"network": network, "average": average, "optimizer": optimizer}
    begun_from = "" if start is None else digest_of(start)
    step, seconds = _load_checkpoint(work / "checkpoint.pt", state, begun_from, device)
    began = time.monotonic() - seconds
    losses: list[float] = []
    progress = tqdm(range(step, steps), desc="outliner", initial=step, total=steps, mininterval=10)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = peak * one_cycle(step / steps)
        rng = np.random.default_rng([seed, step])
        inputs, targets, exist = collate([draw_example(learnt, rng) for _ in range(batch_size)], device)
        logits, iou_logits = network.train()(inputs)
        loss = loss_of(logits, iou_logits, targets, exist)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        losses.append(loss.item())
        if (step + 1) % save_every == 0 or step + 1 == steps:
            seconds = time.monotonic() - began
            saved = {name: one.state_dict() for name, one in state.items()}
            saved |= {"start": begun_from, "step": step + 1, "seconds": seconds}
            _save_checkpoint(work / "checkpoint.pt", saved)
            written = average.module if start is None else between(start.to(device), average.module)
            found = measure(written, unseen, device)
            progress.set_postfix(loss=f"{np.mean(losses[-save_every:]):.3f}")
            log.info("step %d, loss %.4f, %s", step + 1, np.mean(losses[-save_every:]), found)
            training = {"steps": step + 1, "minutes": round(seconds / 60, 1), "held_out": found}
            with atomic_path(out) as temporary:
                save_network(written, temporary, {**record, **training})


def between(first: OutlineNet, second: OutlineNet) -> OutlineNet:
    """The network whose weights are midway between those of two."""
    state = {
        name: (value + second.state_dict()[name]) / 2 if value.is_floating_point() else value
        for name, value in first.state_dict().items()
    }
    found = copy.deepcopy(first)
    found.load_state_dict(state)
    return found


def digest_of(network: OutlineNet) -> str:
    """What weights are known by."""
    values = (value.cpu().numpy().tobytes() for _, value in sorted(network.state_dict().items()))
    return hashlib.sha256(b"".join(values)).hexdigest()


def _average_of(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor) -> None:
    """Move averages towards the weights: fast at first, so that what training begins with is soon forgotten."""
    kept = min(_AVERAGED, (int(num_averaged) + 1) / (int(num_averaged) + 10))
    for average, value in zip(averaged, current, strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - kept)
        else:
            average.copy_(value)


def one_cycle(done: float) -> float:
    """Linear warm-up, then a cosine to zero: the rate's factor once a share of the training is done."""
    if done < _WARMUP:
        return (done + 0.01) / (_WARMUP + 0.01)
    return 0.5 * (1 + float(np.cos(np.pi * (done - _WARMUP) / (1 - _WARMUP))))


def collate(examples: Sequence[Example], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [n, channels, size, size], targets [n, size, size] and float32 [n], whether there is such an object."""
    inputs = torch.from_numpy(np.stack([example.inputs for example in examples]))
    targets = torch.from_numpy(np.stack([example.target for example in examples]))
    exist = torch.tensor([float(example.exists) for example in examples])
    return inputs.to(device, memory_format=torch.channels_last), targets.to(device), exist.to(device)


def loss_of(logits: Tensor, iou_logits: Tensor, targets: Tensor, exist: Tensor) -> Tensor:
    """Cross-entropy and Dice of the masks of objects that exist, and cross-entropy of the predicted IoU."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
    found = logits.sigmoid()
    dice = 1 - (2 * (found * targets).sum((1, 2)) + 1) / (found.sum((1, 2)) + targets.sum((1, 2)) + 1)
    masks = ((entropy + dice) * exist).sum() / exist.sum().clamp(min=1)
    return masks + _IOU_WEIGHT * F.binary_cross_entropy_with_logits(iou_logits, ious_of(logits, targets) * exist)


@torch.no_grad()
def ious_of(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of each mask with its target: float32 [n]."""
    found, truth = logits > 0, targets > 0.5
    return (found & truth).sum((1, 2)) / (found | truth).sum((1, 2)).clamp(min=1)


@torch.inference_mode()
def measure(network: OutlineNet, paths: Sequence[Path], device: torch.device) -> dict[str, float]:
    """Mean IoU by kind of prompt on images that were not trained on, and the mean error of the predicted IoU."""
    network.eval()
    figures, errors = {}, []
    for kind in KINDS:
        rng = np.random.default_rng([1, len(kind)])
        ious: list[float] = []
        for _ in range(_VALIDATION // 16):
            examples = [draw_example(paths, rng, kind=kind, augment=False) for _ in range(16)]
            inputs, targets, exist = collate(examples, device)
            logits, iou_logits = network(inputs)
            found = ious_of(logits, targets) * exist
            errors += (found - iou_logits.sigmoid()).abs().tolist()
            ious += found[exist > 0].tolist()
        figures[kind] = round(float(np.mean(ious)), 4)
    return {**figures, "error of the predicted IoU": round(float(np.mean(errors)), 4)}


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _load_checkpoint(path: Path, state: Mapping[str, Any], begun_from: str, device: torch.device) -> tuple[int, float]:
    """Go on from a checkpoint, where there is one: steps done and the seconds they took.

    Raises:
        UserError: it is of a training that began otherwise, or of an earlier version.
    """
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, map_location=device, weights_only=True)
    if saved.get("start") != begun_from:
        raise UserError(f"{path} is of a training with another --start; give another --work, or remove it")
    for name, one in state.items():
        one.load_state_dict(saved[name])
    return saved["step"], saved["seconds"]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = argparse.ArgumentParser(
        prog="python -m diffugen.labelers.train_outliner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "--data", type=path_option, required=True, help="labelled dataset (YOLO-seg, COCO, VOC, imagefolder)"
    )
    found.add_argument("--model", required=True, help="pipeline folder, .safetensors file or hub id")
    found.add_argument("--out", type=path_option, required=True, help="where the weights go (.safetensors)")
    found.add_argument(
        "--work",
        type=path_option,
        default=Path(".training/outliner"),
        help="readings and checkpoints (default: %(default)s)",
    )
    found.add_argument("--start", type=path_option, help="weights to go on from, at half the rate")
    found.add_argument("--num", type=int, default=5000, help="images at most (default: %(default)s)")
    found.add_argument("--steps", type=int, default=6000, help="(default: %(default)s)")
    found.add_argument("--batch-size", type=int, default=16, help="examples per step (default: %(default)s)")
    found.add_argument("--save-every", type=int, default=250, help="steps between checkpoints (default: %(default)s)")
    found.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda:0' (default: %(default)s)")
    found.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the model")
    found.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    found.add_argument(
        "--factors", type=int, nargs="+", default=[1, 2, 4], help="as generate.attention.factors (default: 1 2 4)"
    )
    found.add_argument(
        "--blocks", nargs="+", default=["down", "up"], help="as generate.attention.blocks (default: down up)"
    )
    found.add_argument(
        "--self-attention-factor", type=int, default=2, help="as generate.attention.self_attention_factor (default: 2)"
    )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read attention, then train."""
    args = parser().parse_args(arguments)
    logging.getLogger().setLevel(logging.INFO)
    device = pick_device(args.device, "--device")
    settings = validate(
        {
            "factors": args.factors,
            "blocks": args.blocks,
            "self_attention_factor": args.self_attention_factor,
        },
        AttentionConfig,
    )
    class_names = class_names_of(args.data)
    start = None if args.start is None else load_network(args.start)
    if start is not None and args.out.exists() and args.out.samefile(args.start):
        raise UserError(f"--out {args.out} is --start; give another place")
    with locked(args.work):
        pipe = load_pipeline(validate({"path": args.model, "dtype": args.dtype, "device": args.device}, ModelConfig))
        paths = readings(
            args.work / "readings", args.data, pipe, settings,
            num=args.num, seed=args.seed, min_area_fraction=AttentionLabelConfig().min_area_fraction,
        )  # fmt: skip
        del pipe
        record = {
            "data": args.data.name,
            "model": Path(args.model).name,
            "images": len(paths),
            "classes": class_names,
            "attention": settings.model_dump(),
            "batch_size": args.batch_size,
            "seed": args.seed,
            "start": None if args.start is None else args.start.name,
            "prompts": KINDS,
            "hardware": torch.cuda.get_device_name(0) if device.type == "cuda" else platform.machine(),
        }
        train(
            paths, args.out, args.work, record,
            steps=args.steps, batch_size=args.batch_size, save_every=args.save_every, device=device, seed=args.seed,
            start=start,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_command(main, "train_outliner"))
