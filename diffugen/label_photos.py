"""Labelling images that nobody generated: a folder of photos or a dataset (`diffugen label`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from diffugen.commands import detector_classes, own_splits, unique_names
from diffugen.config import AttentionLabelConfig, ConfigError, ModelConfig, validate
from diffugen.dataset import DatasetItem, read_dataset, write_dataset
from diffugen.generate import clear_when_disk_is_full
from diffugen.images import list_images, read_image
from diffugen.instances import Instances
from diffugen.prompts import ObjectPhrase, Prompt

_EXIF_ORIENTATION = 0x0112
_COPIED_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # others are written as PNG


@dataclass(frozen=True)
class PhotoLabeler:
    """What looks at one image, uint8 RGB [H, W, 3], and the class names that its class ids index."""

    class_names: list[str]
    label: Callable[[np.ndarray], Instances]


def label_images(source: Path, out: Path, labeler: PhotoLabeler, *, split: str = "train") -> None:
    """Label a folder of photos (all into `split`) or a dataset (its splits kept) and write the dataset.

    Images on which nothing is found stay in it, as images without objects.
    """
    if out.resolve() == source.resolve():
        raise ConfigError(f"--out {out} is the folder of the images; choose another folder")
    counts: Counter[str] = Counter()

    def items() -> Iterator[DatasetItem]:
        for name, stored, image, part in tqdm(_images(source, split), desc="labelling", unit="image"):
            instances = labeler.label(image)
            counts["images"] += 1
            counts["empty"] += not len(instances)
            counts.update(labeler.class_names[class_id] for class_id in instances.class_ids)
            yield DatasetItem(name, stored, instances, part)

    with clear_when_disk_is_full(out):
        write_dataset(out, items(), labeler.class_names, link_images=False)
    found = ", ".join(f"{name} {counts[name]}" for name in labeler.class_names)
    print(f"{counts['images']} images, {counts['empty']} without objects; found: {found}\ndataset: {out}")


def detector_labeler(
    weights: Path, class_names: Sequence[str] | None, score_threshold: float, imgsz: int | None, device: str
) -> PhotoLabeler:
    """Label by a trained detector; `class_names` None means all of its classes."""
    from diffugen.detector import load_detector, predict

    detector = load_detector(weights)
    names = detector_classes(detector.names, class_names, weights)

    def label(image: np.ndarray) -> Instances:
        options: Any = {"score_threshold": score_threshold, "imgsz": imgsz, "device": device}
        return predict(detector, [image], class_names=names, **options)[0]

    return PhotoLabeler(names, label)


def attention_labeler(
    model: str, embeddings: Sequence[Path], objects: Sequence[str], text: str | None, device: str
) -> PhotoLabeler:
    """Label by a diffusion model that is told what to look for.

    Args:
        model: pipeline folder, .safetensors file or hub id.
        embeddings: files of learned tokens.
        objects: "class=words" each; without "=" the words are the class.
        text: caption of every image, with all the words in it; by default "a photo of a <words> and ...".
        device: where the model runs.
    """
    prompt = caption_prompt(objects, text)
    names = list(dict.fromkeys(phrase.class_name for phrase in prompt.objects))

    from diffugen.attention import read_attention
    from diffugen.attention_labeler import AttentionLabeler
    from diffugen.labelers import LabelInput
    from diffugen.pipelines import load_pipeline
    from diffugen.tokens import check_prompt

    values = {"path": model, "embeddings": [str(path) for path in embeddings], "device": device}
    pipe = load_pipeline(validate(values, ModelConfig))
    check_prompt(pipe, prompt)
    labeler = AttentionLabeler(names, AttentionLabelConfig())

    def label(image: np.ndarray) -> Instances:
        (attention,) = read_attention(pipe, [_at_most_native(image, pipe)], [prompt])
        return labeler.label([LabelInput(image=image, prompt=prompt, attention=attention)])[0]

    return PhotoLabeler(names, label)


def caption_prompt(objects: Sequence[str], text: str | None) -> Prompt:
    """The caption that every photo is read with."""
    phrases = []
    for item in objects:
        class_name, _, words = item.rpartition("=")
        if not words.strip():
            raise ConfigError(f"--object {item!r} has no words; write it as CLASS=WORDS")
        phrases.append(ObjectPhrase(text=" ".join(words.split()), class_name=class_name.strip() or words.strip()))
    if not phrases:
        raise ConfigError("--model needs at least one --object CLASS=WORDS, the words to look for")
    caption = text or "a photo of " + " and ".join(f"a {phrase.text}" for phrase in phrases)
    for phrase in phrases:
        if phrase.text not in caption:
            raise ConfigError(f"--prompt {caption!r} lacks the words {phrase.text!r} of --object; write them into it")
    return Prompt(text=caption, objects=tuple(sorted(phrases, key=lambda phrase: caption.index(phrase.text))))


def _images(source: Path, split: str) -> Iterator[tuple[str, Path | np.ndarray, np.ndarray, str]]:
    """Name, what to store (a file to copy, or pixels), pixels and split of each image."""
    if (source / "data.yaml").is_file():
        for part in own_splits(source):
            for name, image, _ in read_dataset(source, part):
                yield name, image, image, part
        return
    paths = list_images(source)
    for path, name in zip(paths, unique_names(paths), strict=True):
        image = read_image(path)
        yield name, path if _stores_as_it_is(path) else image, image, split


def _stores_as_it_is(path: Path) -> bool:
    """Whether everybody reads the file's pixels as we do: a common format, not turned by its metadata."""
    with Image.open(path) as image:
        return path.suffix.lower() in _COPIED_SUFFIXES and image.getexif().get(_EXIF_ORIENTATION, 1) == 1


def _at_most_native(image: np.ndarray, pipe: Any) -> np.ndarray:
    """The image, shrunk to about as many pixels as the model was trained on: it is lost in larger ones."""
    height, width = image.shape[:2]
    native = pipe.unet.config.sample_size * pipe.vae_scale_factor
    scale = native / (height * width) ** 0.5
    if scale >= 1:
        return image
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
