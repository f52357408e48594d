"""The user's own photos recorded like generated images, with their attention where a model reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffugen.attention.extract import read_attention
from diffugen.attention.heatmaps import geometric_mean
from diffugen.checksums import is_intact, read_sealed, write_sealed
from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.images import list_images, read_image, write_png
from diffugen.naming import text_of
from diffugen.progress import progress_bar
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Sample

logger = logging.getLogger(__name__)


def read_photos(
    pipe: Pipeline | None,
    folder: Path,
    prompts: Sequence[Prompt],
    settings: AttentionConfig,
    out: Path,
    *,
    model: Any = None,
) -> list[Sample]:
    """Read the attention of a folder's photos with the same captions for all: samples of the task "photo".

    Args:
        pipe: the pipeline that looks at them; None: they are copied, and nobody knows what they show.
        folder: the photos; they are copied into `out`, so that it stands by itself.
        prompts: captions, each with the same objects in words of its own; the readings are averaged.
        settings: what of the attention counts and is kept. The model looks at no more pixels than it was trained on.
        out: folder for images/ and heatmaps/; `parts/photos.jsonl` comes last, and where it is nothing is done.
        model: recorded as provenance.

    Raises:
        UserError: a photo cannot be read, or a caption does not fit the model.
    """
    part = Path(out) / "parts" / "photos.jsonl"
    if (done := _read_before(part, Path(out))) is not None:
        return done
    if len(prompts) > 1:  # several words stand in for one that the model does not know: none need be right
        settings = settings.model_copy(update={"presence": False})
    photos = []
    for number, path in enumerate(progress_bar(list_images(folder), unit="photo", desc="reading photos")):
        image, name = read_image(path), f"photo_{number:04d}"
        origin = {"photo": text_of(path.name)}
        photo = Sample(name, Path(out) / "images" / f"{name}.png", task="photo", provenance=origin)
        write_png(photo.image_path, image)
        if pipe is not None:
            looked_at = [at_most_native(image, pipe)] * len(prompts)
            readings = read_attention(pipe, looked_at, prompts, settings, seed=number)
            heatmap_path = Path(out) / "heatmaps" / f"{name}.npz"
            photo = _with_captions(photo, prompts, model, number, heatmap_path)
            geometric_mean(readings).save(heatmap_path)
        photos.append(photo)
    write_sealed(part, [photo.recipe() for photo in photos])
    return photos


def _with_captions(photo: Sample, prompts: Sequence[Prompt], model: Any, seed: int, heatmap_path: Path) -> Sample:
    read = {"model": model, **photo.provenance, "captions": [prompt.text for prompt in prompts]}
    return replace(photo, prompt=prompts[0], seed=seed, provenance=read, heatmap_path=heatmap_path)


def _read_before(part: Path, out: Path) -> list[Sample] | None:
    """The photos that were read before; None if they were not, or a file is damaged."""
    if not part.is_file():
        return None
    try:
        photos = [Sample.from_json({**value, "name": Path(value["image"]).stem}, out) for value in read_sealed(part)]
    except UserError as error:
        logger.warning("%s; the photos are read again", error)
        return None
    files = [path for photo in photos for path in (photo.image_path, photo.heatmap_path) if path]
    if damaged := [path for path in files if not is_intact(path)]:
        logger.warning("%s is missing or damaged; the photos are read again", damaged[0])
        return None
    return photos
