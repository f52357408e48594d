"""Attention read from the user's own photos, recorded like generated images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffugen.attention.extract import read_attention
from diffugen.attention.heatmaps import geometric_mean
from diffugen.config.settings import AttentionConfig
from diffugen.diffusion.denoising import at_most_native
from diffugen.diffusion.protocol import Pipeline
from diffugen.files import read_jsonl, write_jsonl
from diffugen.images import list_images, read_image, write_png
from diffugen.naming import text_of
from diffugen.progress import progress_bar
from diffugen.prompts.prompt import Prompt
from diffugen.sample import Sample


def read_photos(
    pipe: Pipeline,
    folder: Path,
    prompts: Sequence[Prompt],
    settings: AttentionConfig,
    out: Path,
    *,
    model: Any,
) -> list[Sample]:
    """Read the attention of a folder's photos with the same captions for all: samples of the task "photo".

    Args:
        pipe: the pipeline that looks at them.
        folder: the photos; they are copied into `out`, so that it stands by itself.
        prompts: captions, each with the same objects in words of its own; the readings are averaged.
        settings: what of the attention counts and is kept. The model looks at no more pixels than it was trained on.
        out: folder for images/ and heatmaps/; `parts/photos.jsonl` comes last, and where it is nothing is done.
        model: recorded as provenance.

    Raises:
        UserError: a photo cannot be read, or a caption does not fit the model.
    """
    part = Path(out) / "parts" / "photos.jsonl"
    if part.is_file():
        return [Sample.from_json({**value, "name": Path(value["image"]).stem}, Path(out)) for value in read_jsonl(part)]
    if len(prompts) > 1:  # several words stand in for one that the model does not know: none need be right
        settings = settings.model_copy(update={"presence": False})
    photos = []
    for number, path in enumerate(progress_bar(list_images(folder), unit="photo", desc="reading photos")):
        image = read_image(path)
        looked_at = [at_most_native(image, pipe)] * len(prompts)
        readings = read_attention(pipe, looked_at, prompts, settings, seed=number)
        name = f"photo_{number:04d}"
        heatmap_path = Path(out) / "heatmaps" / f"{name}.npz"
        photo = Sample(
            name=name,
            image=Path(out) / "images" / f"{name}.png",
            prompt=prompts[0],
            seed=number,
            task="photo",
            provenance={"model": model, "photo": text_of(path.name), "captions": [prompt.text for prompt in prompts]},
            heatmap_path=heatmap_path,
        )
        write_png(photo.image_path, image)
        geometric_mean(readings).save(heatmap_path)
        photos.append(photo)
    write_jsonl(part, [photo.recipe() for photo in photos])
    return photos
