"""Train the toy world's diffusion pipeline from scratch: `python -m diffugen.toyworld.train`.

Stages: tokenizer, autoencoder, latents, denoiser with text encoder. Each resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch

from .captions import caption
from .model import build_tokenizer
from .scene import TRAINING_KINDS, sample_scene
from .train_unet import train_unet
from .train_vae import polish_decoder, train_vae


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m diffugen.toyworld.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(".training/toyworld"), help="checkpoints and the pipeline folder"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--num-crops", type=int, default=100_000, help="64-px crops that the autoencoder sees")
    parser.add_argument("--num-scenes", type=int, default=40_000, help="scenes encoded for the denoiser")
    parser.add_argument("--num-images", type=int, default=1_000_000, help="images that the denoiser sees")
    parser.add_argument("--decay-fraction", type=float, default=0.3, help="last share of these with a falling rate")
    parser.add_argument("--batch-size", type=int, default=32, help="images per denoiser step")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    start = time.time()
    vae = train_vae(args.out, num_crops=args.num_crops, batch_size=4, device=device, seed=args.seed)
    vae = polish_decoder(args.out, vae, num_crops=args.num_crops // 2, batch_size=4, device=device, seed=args.seed)
    logging.info("autoencoder done after %.0f s", time.time() - start)
    train_unet(
        args.out,
        vae,
        build_tokenizer(caption_words()),
        num_scenes=args.num_scenes,
        num_images=args.num_images,
        decay_fraction=args.decay_fraction,
        batch_size=args.batch_size,
        device=device,
        seed=args.seed,
    )
    logging.info("pipeline done after %.0f s: %s", time.time() - start, args.out / "pipeline")


def caption_words() -> set[str]:
    """Every word that a caption can have."""
    captions = (caption(sample_scene(seed), seed) for seed in range(4000))
    return set(" ".join([*captions, *TRAINING_KINDS]).replace(",", " , ").split())


if __name__ == "__main__":
    main()
