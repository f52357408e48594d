"""What an outliner learns from: labelled images, and what a diffusion model attends to in them, kept on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from diffugen.attention.extract import read_attention
from diffugen.attention.heatmaps import ImageAttention
from diffugen.config.settings import AttentionConfig
from diffugen.datasets.folder import class_names_of, read_dataset, splits_of
from diffugen.diffusion.denoising import encode_images
from diffugen.errors import UserError
from diffugen.files import atomic_path, read_jsonl
from diffugen.instances import Instances
from diffugen.labelers.attention import phrase_heats, phrase_parts
from diffugen.masks.matching import mask_iou
from diffugen.masks.refinement import at_most, resize_masks
from diffugen.prompts.prompt import ObjectPhrase, Prompt, words_of

MAX_SIDE = 256
"""sqrt(H * W) of a kept image at most."""

MAX_INSTANCES = 6
"""Images with more are left out: no caption lists them."""

TIMESTEPS = ((100, 200, 300), (50, 200, 300), (150, 200, 300))
_BATCH = 8
_WRONG_WORDS, _ABSENT, _SAME_WORDS, _RECONSTRUCTED = 0.5, 0.15, 0.5, 0.5


@dataclass(frozen=True)
class LabelledScene:
    """A labelled image with its caption; `prompt.objects` are its instances', in their order."""

    image: np.ndarray
    instances: Instances
    prompt: Prompt


@dataclass(frozen=True)
class Reading:
    """A labelled image and the attention of its caption.

    Attributes:
        image: uint8 RGB [H, W, 3].
        truth: bool [n, H, W], the instances.
        heats, spreads: float32 [p, h, w], each phrase's attention, and the same spread along self-attention.
        parts: bool [m, H, W], what attention alone takes for objects.
        part_phrases: int [m], the phrase of each part.
        part_truths: int [m], the instance that each part is, or -1 where it is none of its phrase's.
    """

    image: np.ndarray
    truth: np.ndarray
    heats: np.ndarray
    spreads: np.ndarray
    parts: np.ndarray
    part_phrases: np.ndarray
    part_truths: np.ndarray

    def save(self, path: Path) -> None:
        """Write an npz file, atomically."""
        _, image = cv2.imencode(".png", self.image)
        arrays: dict[str, Any] = {
            "image": image,
            "truth": np.packbits(self.truth),
            "parts": np.packbits(self.parts),
            "counts": np.array([len(self.truth), len(self.parts)]),
            "heats": self.heats.astype(np.float16),
            "spreads": self.spreads.astype(np.float16),
            "part_phrases": self.part_phrases,
            "part_truths": self.part_truths,
        }
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Reading:
        """Read what `save` wrote."""
        with np.load(path) as file:
            image = np.asarray(cv2.imdecode(file["image"], cv2.IMREAD_COLOR))
            masks = []
            for name, count in zip(("truth", "parts"), file["counts"], strict=True):
                shape = (int(count), *image.shape[:2])
                masks.append(np.unpackbits(file[name], count=int(np.prod(shape))).reshape(shape).astype(bool))
            heats, spreads = (file[name].astype(np.float32) for name in ("heats", "spreads"))
            return cls(image, masks[0], heats, spreads, masks[1], file["part_phrases"], file["part_truths"])


def read_scenes(root: Path, split: str) -> Iterator[LabelledScene]:
    """The images of a labelled dataset with their captions.

    These come from captions.jsonl in the dataset's folder, as `diffugen.toyworld.scenes_dataset` writes it ("name",
    "caption", "phrases" and "kinds", one of each per instance); an image without a line is captioned by its classes.
    """
    names = class_names_of(root)
    path = root / "captions.jsonl"
    lines = {line["name"]: line for line in read_jsonl(path)} if path.is_file() else {}
    for name, image, instances in read_dataset(root, split):
        if not 0 < len(instances) <= MAX_INSTANCES:
            continue
        classes = [names[class_id] for class_id in instances.class_ids]
        line = lines.get(name)
        if line is None:
            phrases = [words_of(each, {}) for each in classes]
            text = "a photo of " + " and ".join(f"a {each}" for each in phrases)
        else:
            text, phrases = line["caption"], line["phrases"]
            if line["kinds"] != classes:
                continue  # an object of the caption has no visible pixel
        yield LabelledScene(image, instances, Prompt(text, tuple(map(ObjectPhrase, phrases, classes))))


def readings(
    folder: Path, root: Path, pipe: Any, settings: AttentionConfig, *, num: int, seed: int, min_area_fraction: float
) -> list[Path]:
    """Read attention once, into one file per image; those that are there already are not read again.

    Words are those of the caption, but in half of the images one object is called by another's name, as a rare one
    will be; in some an object that is not there is asked for too. Half of the images are kept as the model's
    autoencoder shows them, as generated ones look.

    Raises:
        UserError: the dataset has no image to learn from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenes = (scene for split in splits_of(root) for scene in read_scenes(root, split))
    seen: Counter[str] = Counter()
    paths: list[Path] = []
    progress = tqdm(total=num, desc="reading attention", unit="image", mininterval=5)
    while batch := list(islice(scenes, min(_BATCH, num - len(paths)))):
        batch_paths = [folder / f"{len(paths) + k:06d}.npz" for k in range(len(batch))]
        rng = np.random.default_rng([seed, len(paths)])
        for scene in batch:
            seen.update(phrase.class_name for phrase in scene.prompt.objects)
        if not all(path.is_file() for path in batch_paths):
            found = _read(batch, pipe, settings, seen, rng, min_area_fraction)
            for path, reading in zip(batch_paths, found, strict=True):
                reading.save(path)
        paths += batch_paths
        progress.update(len(batch))
    progress.close()
    if not paths:
        raise UserError(f"dataset {root} has no image with 1 to {MAX_INSTANCES} instances; give another --data")
    return paths


def _read(
    batch: Sequence[LabelledScene],
    pipe: Any,
    settings: AttentionConfig,
    seen: Counter[str],
    rng: np.random.Generator,
    min_area_fraction: float,
) -> list[Reading]:
    prompts = [_misread(scene.prompt, seen, rng) for scene in batch]
    timesteps = TIMESTEPS[int(rng.integers(len(TIMESTEPS)))]
    images = [scene.image for scene in batch]
    seed = int(rng.integers(2**31))
    attention = read_attention(pipe, images, prompts, settings, timesteps=timesteps, seed=seed, batch_size=_BATCH)
    found = []
    for scene, prompt, one in zip(batch, prompts, attention, strict=True):
        image = _reconstructed(pipe, scene.image) if rng.random() < _RECONSTRUCTED else scene.image
        found.append(_reading(replace(scene, image=image), prompt, one, min_area_fraction))
    return found


def _misread(prompt: Prompt, seen: Counter[str], rng: np.random.Generator) -> Prompt:
    """The caption with other words: the objects stay those of the instances, one that is not there may follow."""
    classes = [phrase.class_name for phrase in prompt.objects]
    others = {name: count for name, count in seen.items() if name not in classes}
    if len(set(classes)) < len(classes) and rng.random() < _SAME_WORDS:
        for index, name in enumerate(classes):
            prompt = _renamed(prompt, index, words_of(name, {}))
    if others and rng.random() < _WRONG_WORDS:
        index = int(rng.integers(len(classes)))
        own, new = (words_of(name, {}) for name in (classes[index], _drawn(others, rng)))
        text = prompt.objects[index].text
        words = text.replace(own, new) if own in text and rng.random() < 0.5 else new  # "red car": "red bench", "bench"
        if classes.count(classes[index]) == 1:
            prompt = _renamed(prompt, index, words)
    if others and rng.random() < _ABSENT:
        words = words_of(_drawn(others, rng), {})
        if words not in prompt.text:
            prompt = replace(
                prompt, text=f"{prompt.text} and a {words}", objects=(*prompt.objects, ObjectPhrase(words, ""))
            )
    return prompt


def _drawn(counts: dict[str, int], rng: np.random.Generator) -> str:
    weights = np.array(list(counts.values()), float)
    return list(counts)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _renamed(prompt: Prompt, index: int, words: str) -> Prompt:
    phrase = prompt.objects[index]
    if prompt.text.count(phrase.text) != 1:
        return prompt
    objects = list(prompt.objects)
    objects[index] = replace(phrase, text=words)
    return replace(prompt, text=prompt.text.replace(phrase.text, words), objects=tuple(objects))


@torch.no_grad()
def _reconstructed(pipe: Any, image: np.ndarray) -> np.ndarray:
    """The image after the model's autoencoder."""
    config = pipe.vae.config
    latents = encode_images(pipe, [image]).to(pipe.vae.dtype)
    latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    pixels = ((pipe.vae.decode(latents).sample[0].float() / 2 + 0.5).clamp(0, 1) * 255).round()
    decoded = pixels.permute(1, 2, 0).to("cpu", torch.uint8).numpy()
    return cv2.resize(decoded, image.shape[1::-1]) if decoded.shape != image.shape else decoded


def _reading(scene: LabelledScene, prompt: Prompt, attention: ImageAttention, min_area_fraction: float) -> Reading:
    image = at_most(scene.image, MAX_SIDE)
    truth = resize_masks(scene.instances.masks, image.shape[:2])
    heats = phrase_heats(prompt.objects, attention)
    phrases = [item.phrase for item in heats]
    owners = np.array([phrases.index(phrase) for phrase in prompt.objects[: len(truth)]])
    parts, part_phrases, part_truths = [np.zeros((0, *image.shape[:2]), bool)], [], []
    found = phrase_parts(image.shape[:2], heats, min_area_fraction, attention.affinity)
    for number, own in enumerate(found):
        own = resize_masks(own, image.shape[:2])
        ious = np.where(owners == number, mask_iou(own, truth), 0.0)
        parts.append(own)
        part_phrases += [number] * len(own)
        part_truths += [int(row.argmax()) if row.max(initial=0) > 0.1 else -1 for row in ious]
    return Reading(
        image,
        truth,
        np.stack([item.heat for item in heats]),
        np.stack([item.spread for item in heats]),
        np.concatenate(parts),
        np.array(part_phrases, np.int64),
        np.array(part_truths, np.int64),
    )
