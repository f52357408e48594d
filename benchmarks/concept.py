"""Does inversion learn the object? `python benchmarks/concept.py --json FILE [--config FILE ...] [--num N]`

The denoiser's error inside the object (exact masks of the renderer), on held-out rendered scenes, for the words that
a caption may call it by; lower is better. Per demo config:
- learned: the concept's token, learned from the demo's photos as the config says;
- initializer, best noun: the word that it starts from, and the noun of the model with the lowest error;
- wrong noun: the mean over the model's nouns;
- native: other kinds, of the model's training, by their own word; native wrong: by the words of one another.
No scene is of the seeds of the photos or of an evaluation set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor

from diffugen.config.settings import ModelConfig
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.files import write_json
from diffugen.toyworld import render
from diffugen.toyworld.captions import PLACE_PHRASES, TIME_PHRASES
from diffugen.toyworld.scene import COMMON_KINDS, INVENTED_KINDS, sample_scene
from textual_inversion.learn import Setup, learn_concept
from train_loop import load_run_config

ROOT = Path(__file__).parents[1]
CONFIGS = [ROOT / f"configs/{name}.json" for name in ("demo", "demo-rubber-duck", "demo-car-accident")]
TIMESTEPS = (400, 600, 800)
FIRST_SEED = 5_500_000


@dataclass(frozen=True)
class Scenes:
    """Held-out scenes of one kind.

    Attributes:
        latents: float32 [n, channels, h, w], as the UNet expects them.
        inside: float32 [n, 1, h, w] in [0, 1], how much of each latent pixel the object covers.
        captions: what each shows, {} in place of the noun.
    """

    latents: Tensor
    inside: Tensor
    captions: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--config", type=Path, nargs="+", default=CONFIGS, help="runs whose concepts are learned")
    parser.add_argument("--num", type=int, default=96, help="scenes per kind")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="first seed of the scenes")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark/concept"), help="folder of the concepts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    args = parser.parse_args()
    figures: dict[str, Any] = {"num": args.num, "seed": args.seed, "timesteps": TIMESTEPS}
    for path in args.config:
        config = load_run_config(path, args.set)
        assert config.model is not None, "a concept needs a model"
        if "native" not in figures:
            figures |= native_errors(load_pipeline(config.model), args.num, args.seed)
        setup = Setup(config.model, config.generate, config.seed)
        for concept in config.concept:
            learned = learn_concept(concept, setup, args.out / path.stem)
            kind = concept.placeholder_token.strip("<>")
            figures[kind] = concept_errors(
                config.model, learned, concept.placeholder_token, concept.start_word, args.num, args.seed
            )
            write_json(args.json, figures)
            print(kind, figures[kind])


def native_errors(pipe: Any, num: int, seed: int, num_kinds: int = 6) -> dict[str, list[float]]:
    """Errors of kinds that the model was trained on, by their own word and by the words of one another."""
    kinds = INVENTED_KINDS[:num_kinds]
    own, other = [], []
    for index, kind in enumerate(kinds):
        scenes = held_out_scenes(pipe, kind, max(1, num // num_kinds), seed)
        own.append(object_error(pipe, scenes, kind))
        other.append(object_error(pipe, scenes, kinds[index - 1]))
    return {"native": np.mean(own, 0).tolist(), "native_wrong": np.mean(other, 0).tolist()}


def concept_errors(
    model: ModelConfig, learned: Path, token: str, initializer: str, num: int, seed: int
) -> dict[str, Any]:
    """The table of one learned concept: errors at every timestep by what the caption calls the object."""
    pipe = load_pipeline(model.model_copy(update={"embeddings": (*model.embeddings, learned)}))
    scenes = held_out_scenes(pipe, token.strip("<>"), num, seed)
    nouns = {noun: object_error(pipe, scenes, noun) for noun in COMMON_KINDS}
    best = min(nouns, key=lambda noun: sum(nouns[noun]))
    return {
        "learned": object_error(pipe, scenes, token),
        "initializer": object_error(pipe, scenes, initializer),
        f"best noun ({best})": nouns[best],
        "mean noun": np.mean(list(nouns.values()), 0).tolist(),
    }


@torch.no_grad()
def held_out_scenes(pipe: Any, kind: str, num: int, seed: int) -> Scenes:
    """Rendered scenes of one object of a kind, encoded."""
    drawn = [render(sample_scene(seed + k, num_objects=1, required_kinds=(kind,))) for k in range(num)]
    pixels = torch.from_numpy(np.stack([one.image for one in drawn])).permute(0, 3, 1, 2) / 127.5 - 1
    encoded = [pipe.vae.encode(part.to(pipe.vae.dtype)).latent_dist.mode() for part in pixels.split(16)]
    latents = torch.cat(encoded).float() * pipe.vae.config.scaling_factor
    masks = torch.from_numpy(np.stack([one.masks[:1] for one in drawn])).float()
    captions = tuple(
        f"a photo of a {scene.objects[0].colour} {{}} {PLACE_PHRASES[scene.place]} {TIME_PHRASES[scene.time]}"
        for scene in (one.scene for one in drawn)
    )
    return Scenes(latents, F.adaptive_avg_pool2d(masks, latents.shape[2:]), captions)


@torch.no_grad()
def object_error(
    pipe: Any, scenes: Scenes, word: str, timesteps: Sequence[int] = TIMESTEPS, batch_size: int = 32
) -> list[float]:
    """Mean squared error of the prediction inside the object, at each timestep; the same noise for every word."""
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    errors = []
    for timestep in timesteps:
        noise = torch.randn(scenes.latents.shape, generator=torch.Generator().manual_seed(timestep))
        total = 0.0
        for start in range(0, len(noise), batch_size):
            part = slice(start, start + batch_size)
            steps = torch.full((len(noise[part]),), timestep)
            noisy = schedule.add_noise(scenes.latents[part], noise[part], steps)
            words, _ = pipe.encode_prompt(
                [text.format(word) for text in scenes.captions[part]], pipe.unet.device, 1, False
            )
            predicted = pipe.unet(noisy, steps, encoder_hidden_states=words).sample
            target = schedule.get_velocity(scenes.latents[part], noise[part], steps)
            total += ((predicted - target).square().mean(1, keepdim=True) * scenes.inside[part]).sum().item()
        errors.append(total / scenes.inside.sum().item())
    return errors


if __name__ == "__main__":
    main()
