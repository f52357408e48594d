"""The pictures of README and docs, drawn from a finished run of the demo: `python docs/pictures.py runs/demo`.

Nothing is chosen by hand: photos and scenes are the first ones, generated images those with the best label scores.
One concept is trained badly on purpose, in addition to the run's own, in the folder `--work`; that takes half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bootstrap.run_folder import RunFolder, derive_seed
from diffugen.attention.heatmaps import ImageAttention
from diffugen.config.loader import validate
from diffugen.datasets.folder import class_names_of, read_dataset
from diffugen.detector.model import load_detector, predict
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.drawing import heat_overlay
from diffugen.files import read_json
from diffugen.images import list_images, read_image
from diffugen.instances import Instances
from diffugen.sample import Sample, read_samples
from textual_inversion.config import ConceptConfig
from textual_inversion.learn import Setup, learn_concept
from textual_inversion.pictures import generate_samples
from train_loop import RunConfig

OUT = Path(__file__).parent / "img"
TILE, GAP, HEAD, MARGIN = 240, 10, 66, 10
INK, GREY, MARK = (25, 25, 25), (100, 100, 100), (86, 180, 233)
TOO_FEW_STEPS = 10


@dataclass(frozen=True)
class Line:
    """A row or column of pictures: what it is, in a few words, and the pictures, uint8 RGB."""

    title: str
    note: str
    pictures: Sequence[np.ndarray]


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run of the demo")
    parser.add_argument("--work", type=Path, default=Path("runs/pictures"), help="folder for the bad concept")
    options = parser.parse_args()
    run = RunFolder(options.run.resolve())
    config = validate(read_json(run.config)["config"], RunConfig)
    OUT.mkdir(exist_ok=True)
    save(columns(strip(config, run)), OUT / "strip.jpg")
    save(rows(concepts(config, run, options.work)), OUT / "concepts.jpg")


def strip(config: RunConfig, run: RunFolder, number: int = 3) -> list[Line]:
    """The way from photos to a detector, `number` pictures of each stage."""
    samples = list(islice(best_samples(read_samples(run.round(0).samples), config.rare_classes), number))
    images = [enlarged(sample.pixels()) for sample in samples]
    heat = [heat_overlay(*pair) for pair in zip(images, map(first_heatmap, samples), strict=True)]
    masks = [marked(sample.pixels(), sample.instances) for sample in samples]
    return [
        Line("1  Your photos", "a handful, no labels", first_photos(config.concept[0], number)),
        Line("2  Generated", "the learned word, new scenes", images),
        Line("3  Attention", "where the word is attended", heat),
        Line("4  Labels", "masks from attention", masks),
        Line("5  Detector", "on scenes it has never seen", found(config, run, number)),
    ]


def best_samples(samples: Sequence[Sample], rare: Sequence[str]) -> Iterator[Sample]:
    """Kept images of one rare object, best label first, none at night, a new place each."""
    places = set()
    for sample in sorted(samples, key=lambda sample: -max(sample.scores, default=0.0)):
        shown = [phrase.class_name for phrase in sample.prompt.objects]
        attributes = sample.prompt.attributes
        place = attributes.get("place")
        shows_it = sample.kept and not sample.is_photo and len(shown) == 1 and shown[0] in rare
        if shows_it and attributes.get("time") != "at night" and place not in places:
            places.add(place)
            yield sample


def first_heatmap(sample: Sample) -> np.ndarray:
    """Where the first phrase of a generated image is attended, float32 [h, w]."""
    assert sample.heatmap_path is not None, "generated images have heatmaps"
    return (
        ImageAttention.load(sample.heatmap_path, [phrase.text for phrase in sample.prompt.objects]).heatmaps[0].values
    )


def first_photos(concept: ConceptConfig, number: int) -> list[np.ndarray]:
    """A concept's first photos."""
    return [enlarged(read_image(path)) for path in list_images(concept.photos)[:number]]


def found(config: RunConfig, run: RunFolder, number: int) -> list[np.ndarray]:
    """The promoted detector on the evaluation set's first scenes that show the rare object alone."""
    assert config.evaluation is not None, "the run has no evaluation set"
    names = class_names_of(config.evaluation.dataset)
    scenes = read_dataset(config.evaluation.dataset, config.evaluation.split, names)
    alone = (image for _, image, truth in scenes if [names[i] for i in truth.class_ids] == [config.rare_classes[0]])
    images = list(islice(alone, number))
    detections = predict(load_detector(run.best), images, class_names=config.classes)
    return [marked(*pair) for pair in zip(images, detections, strict=True)]


def concepts(config: RunConfig, run: RunFolder, work: Path, number: int = 4) -> list[Line]:
    """Photos of the object, and what the model draws for a concept that was learned and for one that was not."""
    assert config.model is not None
    concept = config.concept[0]
    unlearned = concept.model_copy(update={"steps": TOO_FEW_STEPS})
    setup = Setup(config.model, config.generate, derive_seed(config.seed, "concept", 0))
    good = f"{concept.steps} steps: rough, but a\nbody on legs, and no\nlonger a {concept.initializer_word}"
    bad = f"{TOO_FEW_STEPS} steps: the word still\nmeans {concept.initializer_word}"
    return [
        Line("Your photos", "", first_photos(concept, number)),
        Line("Good enough", good, drawn(config, run.concept / "learned_embeds.safetensors", number)),
        Line("Bad", bad, drawn(config, learn_concept(unlearned, setup, work), number)),
    ]


def drawn(config: RunConfig, learned: Path, number: int) -> list[np.ndarray]:
    """Images of the first concept's word by the run's model and an embedding file, the same seeds for any file."""
    assert config.model is not None
    concept = config.concept[0]
    pipe = load_pipeline(config.model.model_copy(update={"embeddings": (learned,)}))
    colours = ("black", "red", "white", "blue")[:number]
    captions = [f"a photo of a {colour} {concept.placeholder_token} by day" for colour in colours]
    images = generate_samples(pipe, captions, config.generate, seed=7)
    return [enlarged(np.asarray(image)) for image in images]


def marked(image: np.ndarray, instances: Instances) -> np.ndarray:
    """An image at the size of a tile, its objects tinted and outlined."""
    canvas = enlarged(image)
    for mask in instances.masks:
        large = enlarged(mask.astype(np.uint8) * 255) > 127
        canvas[large] = (0.55 * canvas[large] + 0.45 * np.array(MARK)).astype(np.uint8)
        outlines, _ = cv2.findContours(large.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas


def enlarged(image: np.ndarray) -> np.ndarray:
    """An image at the size of a tile."""
    return np.array(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS))


def columns(lines: Sequence[Line]) -> Image.Image:
    """A column per stage, its title above it."""
    height = HEAD + max(len(line.pictures) for line in lines) * (TILE + GAP) - GAP
    canvas, pen = blank(len(lines) * (TILE + GAP) - GAP, height)
    for number, line in enumerate(lines):
        left = MARGIN + number * (TILE + GAP)
        write(pen, (left, MARGIN), line)
        for row, picture in enumerate(line.pictures):
            canvas.paste(Image.fromarray(picture), (left, MARGIN + HEAD + row * (TILE + GAP)))
    return canvas


def rows(lines: Sequence[Line]) -> Image.Image:
    """A row per concept, its title to the left."""
    width = TILE + max(len(line.pictures) for line in lines) * (TILE + GAP)
    canvas, pen = blank(width, len(lines) * (TILE + GAP) - GAP)
    for number, line in enumerate(lines):
        top = MARGIN + number * (TILE + GAP)
        write(pen, (MARGIN, top + TILE // 2 - 50), line)
        for column, picture in enumerate(line.pictures):
            canvas.paste(Image.fromarray(picture), (MARGIN + TILE + GAP + column * (TILE + GAP), top))
    return canvas


def blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white sheet with margins, and a pen for it."""
    canvas = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), "white")
    return canvas, ImageDraw.Draw(canvas)


def write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], line: Line) -> None:
    """A line's title, and below it its note."""
    pen.text(corner, line.title, fill=INK, font=ImageFont.load_default(24))
    pen.text((corner[0], corner[1] + 32), line.note, fill=GREY, font=ImageFont.load_default(17), spacing=5)


def save(picture: Image.Image, path: Path) -> None:
    """A JPEG with sharp colours, small enough to be committed."""
    picture.save(path, quality=82, subsampling=0, optimize=True, progressive=True)
    print(f"{path}: {picture.width}x{picture.height}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
