"""Generating images with heatmaps, batch by batch, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from diffugen.attention.extract import generate_with_attention
from diffugen.batching import lacks_memory
from diffugen.config.errors import first_difference
from diffugen.config.settings import GenerateConfig
from diffugen.diffusion.tokens import check_prompt
from diffugen.errors import UserError
from diffugen.files import read_jsonl, write_jsonl
from diffugen.generation.record import GeneratedRecord
from diffugen.images import write_png
from diffugen.prompts.prompt import Prompt

logger = logging.getLogger(__name__)


class Start(Protocol):
    """What a sample starts from, where it does not start from noise."""

    @property
    def task(self) -> str:
        """ "img2img" or "inpaint"."""

    @property
    def strength(self) -> float:
        """Share of the denoising steps, in (0, 1]."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What is recorded about it."""

    def load(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The image, uint8 RGB [H, W, 3], and for "inpaint" where it is repainted, bool [H, W]."""


def generate_batches(
    pipe: Any,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    settings: GenerateConfig,
    out: Path,
    *,
    starts: Sequence[Start | None] | None = None,
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
    on_done: Callable[[GeneratedRecord], object] = lambda record: None,
) -> list[GeneratedRecord]:
    """Generate one image per prompt into `out`; what is there already is kept.

    A batch writes its images and heatmaps, then its part of the records (`parts/batch_<first id>.jsonl`): a
    part that is there stands for a finished batch. When the GPU runs out of memory, batches are halved.

    Args:
        pipe: a text-to-image pipeline.
        prompts: all of them are checked before anything is generated.
        seeds: one per prompt.
        settings: size, steps, guidance, batch size.
        out: folder for images/, heatmaps/ and parts/.
        starts: what each sample starts from (img2img, inpaint), None where it is noise (txt2img); None: all from noise.
        progress: show a progress bar.
        provenance: what to record about the model; by default its path.
        on_done: called with every record once its files are there, those of an earlier run included.

    Returns:
        The records in the order of the prompts.

    Raises:
        UserError: a prompt does not fit the model, `out` holds other samples, one image is too much for the GPU.
        OSError: the disk is full.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"one seed per prompt: {len(prompts)} prompts, {len(seeds)} seeds")
    for prompt in prompts:
        check_prompt(pipe, prompt, settings.attend)
    model = {"model": str(getattr(pipe, "name_or_path", ""))} if provenance is None else dict(provenance)
    made_with = json.loads(json.dumps(model | settings.model_dump(exclude={"batch_size"})))  # as it will be read back
    starts = [None] * len(prompts) if starts is None else starts
    wanted = _plan(prompts, seeds, starts, made_with, Path(out))
    start_of = {record.id: start for record, start in zip(wanted, starts, strict=True) if start is not None}
    done = _finished(wanted, Path(out))
    pending = [record for record in wanted if record.id not in done]
    batch_size = settings.batch_size
    for record in wanted:
        if record.id in done:
            on_done(record)
    with tqdm(total=len(wanted), initial=len(done), unit="image", desc="generating", disable=not progress) as bar:
        while pending:
            batch, inputs = _load_starts(pending[:batch_size], start_of)
            if _generate_batch(pipe, batch, settings, Path(out), inputs):
                pending = pending[len(batch) :]
                for record in batch:
                    on_done(record)
                bar.update(len(batch))
            else:
                batch_size = _halved(len(batch))
    return wanted


def _plan(
    prompts: Sequence[Prompt], seeds: Sequence[int], starts: Sequence[Start | None], model: dict[str, Any], out: Path
) -> list[GeneratedRecord]:
    tasks = ["txt2img" if start is None else start.task for start in starts]
    parents = [{} if start is None else start.provenance for start in starts]
    return [
        GeneratedRecord(
            id=f"{number:06d}",
            image_path=out / "images" / f"{number:06d}.png",
            heatmap_path=out / "heatmaps" / f"{number:06d}.npz",
            prompt=prompt,
            seed=int(seed),
            task=task,
            provenance=model | json.loads(json.dumps(parent)),
        )
        for number, (prompt, seed, task, parent) in enumerate(zip(prompts, seeds, tasks, parents, strict=True))
    ]


def _finished(wanted: Iterable[GeneratedRecord], out: Path) -> set[str]:
    """Ids of the wanted samples that are there; parts whose files are gone are made again whole."""
    by_id = {record.id: record for record in wanted}
    done: set[str] = set()
    for part in sorted((out / "parts").glob("batch_*.jsonl")):
        records = [GeneratedRecord.from_json(value, out) for value in read_jsonl(part)]
        for record in records:
            _check_same(record, by_id.get(record.id), out)
        if all(record.image_path.is_file() and record.heatmap_path.is_file() for record in records):
            done.update(record.id for record in records)
        else:
            part.unlink()
    return done


def _check_same(made: GeneratedRecord, wanted: GeneratedRecord | None, out: Path) -> None:
    if made == wanted:
        return
    difference = wanted and first_difference(made.to_json(), wanted.to_json())
    raise UserError(
        f"{out} holds other samples than are wanted now (first: {made.id}, "
        f"{difference or 'which is not wanted any more'}); choose another folder or delete this one"
    )


def _load_starts(
    batch: list[GeneratedRecord], start_of: Mapping[str, Start]
) -> tuple[list[GeneratedRecord], dict[str, Any]]:
    """The records that can run together, as only those of one task, strength and size can, and what they start from."""
    starts = [start_of.get(record.id) for record in batch]
    loaded = [None if start is None else (start, *start.load()) for start in starts]
    kinds = [item and (item[0].task, item[0].strength, item[1].shape) for item in loaded]
    alike = next((number for number, kind in enumerate(kinds) if kind != kinds[0]), len(batch))
    together = [item for item in loaded[:alike] if item is not None]
    if not together:
        return batch[:alike], {}
    started, images, masks = zip(*together, strict=True)
    inputs = {"images": images, "strength": started[0].strength}
    return batch[:alike], inputs | ({"masks": masks} if masks[0] is not None else {})


def _generate_batch(
    pipe: Any, batch: Sequence[GeneratedRecord], settings: GenerateConfig, out: Path, inputs: Mapping[str, Any]
) -> bool:
    """Generate and write a batch; False when it does not fit into the GPU's memory."""
    try:
        results = generate_with_attention(
            pipe, [record.prompt for record in batch], [record.seed for record in batch], settings, **inputs
        )
    except RuntimeError as error:
        if not lacks_memory(error, len(batch)):
            raise
        return False  # the frames that hold the tensors are released with the exception
    for record, (image, attention) in zip(batch, results, strict=True):
        write_png(record.image_path, image)
        attention.save(record.heatmap_path)
    write_jsonl(out / "parts" / f"batch_{batch[0].id}.jsonl", [record.to_json() for record in batch])
    return True


def _halved(num_images: int) -> int:
    if num_images == 1:
        raise UserError(
            "one image does not fit into the GPU's memory; lower generate.height and generate.width, or set "
            'model.dtype to "float16" or model.cpu_offload to true'
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("GPU memory ran out with %d images at a time; going on with %d", num_images, num_images // 2)
    return num_images // 2
