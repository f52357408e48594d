"""Learning a concept: from photos and a model to `learned_embeds.safetensors`, through kills and restarts."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diffugen.config.settings import GenerateConfig, ModelConfig
from diffugen.diffusion.embeddings import text_parts, write_embedding
from diffugen.diffusion.native import native_size_hw
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.diffusion.protocol import Pipeline
from diffugen.files import atomic_path, write_json, write_text
from textual_inversion.config import ConceptConfig
from textual_inversion.data import ConceptDraws, augmented_views, encode_views
from textual_inversion.fidelity import Fidelity, FidelityJudge
from textual_inversion.lora import add_lora, save_lora
from textual_inversion.module import ConceptModule, check_prediction_type, diverged
from textual_inversion.object_weights import object_weights
from textual_inversion.photos import captions_of, find_photos, load_photo
from textual_inversion.pictures import draw_loss_curve, generate_samples, sample_prompts, side_by_side
from textual_inversion.placeholder import add_placeholder, check_tokens, merge_placeholder
from textual_inversion.record import (
    RECORD_FILE,
    check_same_concept,
    damaged_files,
    has_noted_files,
    make_record,
    note_files,
)
from textual_inversion.trainer import check_devices, checkpoint_path, fit, for_training

logger = logging.getLogger(__name__)

EMBEDDING_FILE = "learned_embeds.safetensors"
LORA_FILE = "lora.safetensors"


def check_concept(config: ConceptConfig, pipe: Pipeline | None = None) -> None:
    """Check what the user gave before any work starts.

    Args:
        config: the concept.
        pipe: the pipeline that will learn it; without one only the photos and their captions are checked.

    Raises:
        UserError: one sentence that names the setting: an empty folder, an unreadable photo, a word that
            the model does not know, a token that it knows already, a template or caption that is too long, a
            model of a kind that cannot learn.
    """
    photos = find_photos(config.photos)
    for path in photos:
        load_photo(path)
    captions = captions_of(photos, config.templates, config.placeholder_token)
    if pipe is None:
        return
    check_prediction_type(pipe)
    check_tokens(config, pipe, [caption for own in captions for caption in own])


@dataclass(frozen=True)
class Setup:
    """What concepts share.

    Attributes:
        model: the diffusion model that learns them.
        generate: how images will be generated: `samples.png` is made like that, and what of the model's attention
            counts tells where in the photos the object is.
        seed: of everything random.
        detector: weights of a detector whose backbone judges how much of the photos is drawn: the best step is kept,
            and `fidelity.json` written. None: the last step is kept.
    """

    model: ModelConfig
    generate: GenerateConfig = GenerateConfig()  # noqa: RUF009 (immutable)
    seed: int = 0
    detector: Path | None = None


def learn_concepts(concepts: Sequence[ConceptConfig], setup: Setup, out: Path, *, progress: bool = True) -> ModelConfig:
    """Learn concepts one after another, each by itself; returns the model that knows them all.

    One concept's files are in `out`, several concepts' in a folder each, named after the token. See
    `learn_concept` for the rest.
    """
    folders, model = _folders(concepts, out), setup.model
    learned = [learn_concept(concept, setup, folder, progress=progress) for concept, folder in folders]
    loras = [folder / LORA_FILE for concept, folder in folders if concept.lora_rank]
    return model.model_copy(
        update={"embeddings": (*model.embeddings, *learned), "lora": loras[0] if loras else model.lora}
    )


def fidelities(concepts: Sequence[ConceptConfig], out: Path) -> list[tuple[ConceptConfig, Fidelity]]:
    """How much of their photos learned concepts draw, where it was measured."""
    found = ((concept, Fidelity.read(folder)) for concept, folder in _folders(concepts, out))
    return [(concept, fidelity) for concept, fidelity in found if fidelity is not None]


def are_learned(concepts: Sequence[ConceptConfig], out: Path) -> bool:
    """Whether `learn_concepts` has nothing left to do in `out`."""
    return all(_is_learned(concept, folder) for concept, folder in _folders(concepts, out))


def _is_learned(config: ConceptConfig, out: Path) -> bool:
    """Whether the files that images are generated with are there, and as they were written."""
    needed = [out / EMBEDDING_FILE, *([out / LORA_FILE] if config.lora_rank else [])]
    damaged = damaged_files(out)
    return all(path.is_file() and path not in damaged for path in needed)


def _folders(concepts: Sequence[ConceptConfig], out: Path) -> list[tuple[ConceptConfig, Path]]:
    if len(concepts) == 1:
        return [(concepts[0], out)]
    return [(concept, out / re.sub(r"[^\w.-]", "_", concept.placeholder_token[1:-1])) for concept in concepts]


def learn_concept(config: ConceptConfig, setup: Setup, out: Path, *, progress: bool = True) -> Path:
    """Learn a concept from photos by textual inversion.

    A killed call goes on where its last checkpoint was, and ends with the same file (bit for bit on a CPU);
    a finished one returns at once.

    Args:
        config: the concept.
        setup: the model and the seed.
        out: folder for the embedding (diffusers' format), `lora.safetensors` if asked for, `loss.csv`,
            `loss.png`, `samples.png` (the same prompts and seeds without and with the concept), `fidelity.json`
            if it is judged, and `concept.json` (what it was learned from).
        progress: show a progress bar.

    Returns:
        The path of `learned_embeds.safetensors`; it is the last file to be written.

    Raises:
        UserError: as `check_concept`, or `out` holds a concept learned with other settings.
    """
    out, model = Path(out), setup.model
    finished = out / EMBEDDING_FILE
    record = make_record(config, model, setup.generate.attention, setup.seed)
    check_same_concept(record, out)
    if _is_learned(config, out):
        for path in damaged_files(out):
            logger.warning("%s is missing or damaged; nothing but the report needs it", path)
        _conclude(record, out)
        return finished
    if finished.exists():
        logger.warning("%s or a file with it is damaged; the concept is learned again", finished)
        finished.unlink()

    check_devices(config, model)
    pipe = load_pipeline(for_training(model))
    check_concept(config, pipe)
    write_json(out / RECORD_FILE, record)
    without = generate_samples(pipe, sample_prompts(config, config.start_word), setup.generate, setup.seed)
    judge = None
    if setup.detector is not None:
        judge = FidelityJudge(setup.detector, config, pipe, setup.generate, setup.seed)
    module = _build_module(config, setup, pipe, judge)
    _train(module, pipe, config, model, out, progress)
    by_step = module.keep_best()

    if not all(torch.isfinite(learned).all() for learned in (*module.rows, *module.lora)):
        raise diverged(config, config.steps)
    merge_placeholder(pipe)
    _write_losses(module, out)
    if config.lora_rank:
        save_lora(pipe.unet, out / LORA_FILE)
    with_ = generate_samples(pipe, sample_prompts(config, config.placeholder_token), setup.generate, setup.seed)
    with atomic_path(out / "samples.png") as temporary:
        side_by_side(config, without, with_).save(temporary)
    if judge:
        Fidelity(None if judge.start_is_near else max(by_step.values()), by_step).write(out)
    write_embedding(finished, config.placeholder_token, list(module.rows))
    _conclude(record, out)
    logger.info("learned %s: %s", config.placeholder_token, finished)
    return finished


def _conclude(record: dict[str, Any], out: Path) -> None:
    """What is left to do once the embedding is written."""
    shutil.rmtree(checkpoint_path(out).parent, ignore_errors=True)
    if not has_noted_files(out):
        note_files(record, out)


def _build_module(config: ConceptConfig, setup: Setup, pipe: Pipeline, judge: FidelityJudge | None) -> ConceptModule:
    """The pipeline frozen but for the placeholder (and the LoRA), and the photos as latents."""
    if pipe.get_list_adapters():  # a LoRA of the model's own: part of the frozen weights from here on
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    for network in (pipe.vae, pipe.unet, *(encoder for _, _, encoder in text_parts(pipe))):
        network.requires_grad_(False)
    draws = _draws(config, setup, pipe, find_photos(config.photos))
    placeholder = add_placeholder(pipe, config)
    lora = add_lora(pipe.unet, config.lora_rank, setup.seed) if config.lora_rank else []
    return ConceptModule(pipe, placeholder, draws, config, lora, judge)


def _draws(config: ConceptConfig, setup: Setup, pipe: Pipeline, photos: Sequence[Path]) -> ConceptDraws:
    """The photos' views of the model's own size, encoded and weighted, with their captions."""
    weigh = partial(
        object_weights,
        pipe,
        template=config.templates[0],
        word=config.start_word,
        emphasis=config.object_emphasis,
        settings=setup.generate.attention.model_copy(
            update={"self_attention_factor": 0, "attend": "tokens", "presence": False}
        ),
    )
    images = (load_photo(path) for path in photos)
    views = augmented_views(images, native_size_hw(pipe), setup.seed)
    pool = encode_views(pipe.vae, views, weigh if config.object_emphasis else None)
    captions = captions_of(photos, config.templates, config.placeholder_token)
    texts = [tuple(text.format(config.placeholder_token) for text in own) for own in captions]
    by_view = [own for own in texts for _ in range(len(pool.mean) // len(photos))]
    return ConceptDraws(pool, by_view, batch_size=config.batch_size, seed=setup.seed)


def _train(
    module: ConceptModule, pipe: Pipeline, config: ConceptConfig, model: ModelConfig, out: Path, progress: bool
) -> None:
    device = pipe.device
    if config.num_devices > 1:
        pipe.to("cpu")  # every process brings it to its own device
    fit(module, config, model, out, progress)
    module.to(device)
    pipe.to(device)


def _write_losses(module: ConceptModule, out: Path) -> None:
    losses = module.losses[~module.losses.isnan()].tolist()
    rows = (f"{step},{loss:.6f}\n" for step, loss in enumerate(losses, start=1))
    write_text(out / "loss.csv", "step,loss\n" + "".join(rows))
    with atomic_path(out / "loss.png") as temporary:
        draw_loss_curve(losses).save(temporary)
