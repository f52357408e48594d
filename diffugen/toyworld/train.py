"""Train the toy world's diffusion pipeline from scratch: `python -m diffugen.toyworld.train`.

Stages: tokenizer, autoencoder, latents, denoiser with text encoder. Each resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from diffugen.command_line import path_option, run_command
from diffugen.devices import pick_device
from diffugen.outputs import claim_output
from diffugen.toyworld.captions import caption
from diffugen.toyworld.scene import TRAINING_KINDS, sample_scene
from diffugen.toyworld.training.model import build_tokenizer
from diffugen.toyworld.training.train_unet import train_unet
from diffugen.toyworld.training.train_vae import polish_decoder, train_vae


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m diffugen.toyworld.train`."""
    parser = argparse.ArgumentParser(prog="python -m diffugen.toyworld.train", description=__doc__)
    parser.add_argument(
        "--out", type=path_option, default=Path(".training/toyworld"), help="checkpoints and the pipeline folder"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--num-crops", type=int, default=100_000, help="64-px crops that the autoencoder sees")
    parser.add_argument("--num-scenes", type=int, default=40_000, help="scenes encoded for the denoiser")
    parser.add_argument("--num-images", type=int, default=1_000_000, help="images that the denoiser sees")
    parser.add_argument("--decay-fraction", type=float, default=0.3, help="last share of these with a falling rate")
    parser.add_argument("--batch-size", type=int, default=32, help="images per denoiser step")
    parser.add_argument("--save-every", type=int, default=500, help="denoiser steps between checkpoints")
    parser.add_argument(
        "--cuda-graph",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record the denoiser's step on a GPU and replay it: several times as fast",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument(
        "--start-from",
        type=path_option,
        metavar="FOLDER",
        help="go on from a trained toy pipeline: its autoencoder stays",
    )
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return run_command(lambda: train_pipeline(args), "toyworld.train")


def train_pipeline(args: argparse.Namespace) -> None:
    """Train all stages, or go on with them."""
    inputs = [args.start_from] if args.start_from else []
    claim_output(args.out, "toyworld.train", inputs, is_earlier=lambda folder: (folder / "vae.pt").is_file())
    device = pick_device(args.device, "--device")
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 for what autocast leaves in float32
    start = time.time()
    trained = StableDiffusionPipeline.from_pretrained(args.start_from) if args.start_from else None
    if trained is not None:
        vae, tokenizer = trained.vae.to(device), trained.tokenizer
    else:
        vae, tokenizer = (
            train_autoencoder(args.out, args.num_crops, device, args.seed),
            build_tokenizer(caption_words()),
        )
    logging.info("autoencoder done after %.0f s", time.time() - start)
    train_unet(
        args.out,
        vae,
        tokenizer,
        num_scenes=args.num_scenes,
        num_images=args.num_images,
        decay_fraction=args.decay_fraction,
        batch_size=args.batch_size,
        save_every=args.save_every,
        device=device,
        seed=args.seed,
        cuda_graph=args.cuda_graph,
        start_from=trained,
    )
    logging.info("pipeline done after %.0f s: %s", time.time() - start, args.out / "pipeline")


def train_autoencoder(out: Path, num_crops: int, device: torch.device, seed: int) -> AutoencoderKL:
    """Both stages of the autoencoder."""
    vae = train_vae(out, num_crops=num_crops, batch_size=4, device=device, seed=seed)
    return polish_decoder(out, vae, num_crops=num_crops // 2, batch_size=4, device=device, seed=seed)


def caption_words() -> set[str]:
    """Every word that a caption can have."""
    captions = (caption(sample_scene(seed), seed) for seed in range(4000))
    return set(" ".join([*captions, *TRAINING_KINDS]).replace(",", " , ").split())


if __name__ == "__main__":
    sys.exit(main())
