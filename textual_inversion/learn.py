"""Learning a concept: from photos and a model to `learned_embeds.safetensors`, through kills and restarts."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from diffugen.config.settings import AttentionConfig, ModelConfig
from diffugen.diffusion.embeddings import text_parts, write_embedding
from diffugen.diffusion.pipelines import load_pipeline
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from diffugen.files import atomic_path, write_json, write_text
from textual_inversion.config import ConceptConfig
from textual_inversion.data import ConceptDraws, augmented_views, encode_views
from textual_inversion.lora import add_lora, save_lora
from textual_inversion.module import ConceptModule, check_prediction_type, diverged
from textual_inversion.object_weights import object_weights
from textual_inversion.photos import captions_of, find_photos, load_photo
from textual_inversion.pictures import draw_loss_curve, generate_samples, side_by_side
from textual_inversion.placeholder import add_placeholder, check_tokens, merge_placeholder
from textual_inversion.record import RECORD_FILE, check_same_concept, make_record
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
    captions = captions_of(photos, config.caption_templates, config.placeholder_token)
    if config.early_stop and config.early_stop.num_photos >= len(photos):
        raise UserError(
            f"concept.early_stop.num_photos is {config.early_stop.num_photos} of {len(photos)} photos, which leaves "
            "none to learn from; lower it or leave concept.early_stop out"
        )
    if pipe is None:
        return
    check_prediction_type(pipe)
    check_tokens(config, pipe, [caption for own in captions for caption in own])


def learn_concepts(
    concepts: Sequence[ConceptConfig], model: ModelConfig, out: Path, *, progress: bool = True
) -> ModelConfig:
    """Learn concepts one after another, each by itself; returns the model that knows them all.

    One concept's files are in `out`, several concepts' in a folder each, named after the token. See
    `learn_concept` for the rest.
    """
    folders = _folders(concepts, out)
    learned = [learn_concept(concept, model, folder, progress=progress) for concept, folder in folders]
    loras = [folder / LORA_FILE for concept, folder in folders if concept.lora]
    return model.model_copy(
        update={"embeddings": (*model.embeddings, *learned), "lora": loras[0] if loras else model.lora}
    )


def are_learned(concepts: Sequence[ConceptConfig], out: Path) -> bool:
    """Whether `learn_concepts` has nothing left to do in `out`."""
    return all((folder / EMBEDDING_FILE).is_file() for _, folder in _folders(concepts, out))


def _folders(concepts: Sequence[ConceptConfig], out: Path) -> list[tuple[ConceptConfig, Path]]:
    if len(concepts) == 1:
        return [(concepts[0], out)]
    return [(concept, out / re.sub(r"[^\w.-]", "_", concept.placeholder_token[1:-1])) for concept in concepts]


def learn_concept(config: ConceptConfig, model: ModelConfig, out: Path, *, progress: bool = True) -> Path:
    """Learn a concept from photos by textual inversion.

    A killed call goes on where its last checkpoint was, and ends with the same file (bit for bit on a CPU);
    a finished one returns at once.

    Args:
        config: the concept.
        model: the diffusion model that learns it.
        out: folder for the embedding (diffusers' format), `lora.safetensors` if asked for, `loss.csv`,
            `loss.png`, `samples.png` (the same prompts and seeds without and with the concept) and
            `concept.json` (what it was learned from).
        progress: show a progress bar.

    Returns:
        The path of `learned_embeds.safetensors`; it is the last file to be written.

    Raises:
        UserError: as `check_concept`, or `out` holds a concept learned with other settings.
    """
    out = Path(out)
    finished = out / EMBEDDING_FILE
    record = make_record(config, model)
    check_same_concept(record, out)
    if finished.exists():
        return finished

    check_devices(config, model)
    pipe = load_pipeline(for_training(model))
    check_concept(config, pipe)
    write_json(out / RECORD_FILE, record)
    size_hw = _size_hw(config, pipe)
    without = generate_samples(pipe, config, config.initializer_word, size_hw)
    module = _build_module(config, pipe, size_hw)
    _train(module, pipe, config, model, out, progress)

    if not all(torch.isfinite(learned).all() for learned in (*module.rows, *module.lora)):
        raise diverged(config, config.steps)
    merge_placeholder(pipe)
    _write_losses(module, out)
    if config.lora:
        save_lora(pipe.unet, out / LORA_FILE)
    if config.samples.num_images:
        with_ = generate_samples(pipe, config, config.placeholder_token, size_hw)
        with atomic_path(out / "samples.png") as temporary:
            side_by_side(config, without, with_).save(temporary)
    write_embedding(finished, config.placeholder_token, list(module.rows))
    shutil.rmtree(checkpoint_path(out).parent, ignore_errors=True)
    logger.info("learned %s: %s", config.placeholder_token, finished)
    return finished


def _size_hw(config: ConceptConfig, pipe: Pipeline) -> tuple[int, int]:
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    factor = pipe.vae_scale_factor
    return config.height or height * factor, config.width or width * factor


def _build_module(config: ConceptConfig, pipe: Pipeline, size_hw: tuple[int, int]) -> ConceptModule:
    """The pipeline frozen but for the placeholder (and the LoRA), and the photos as latents."""
    if pipe.get_list_adapters():  # a LoRA of the model's own: part of the frozen weights from here on
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    for network in (pipe.vae, pipe.unet, *(encoder for _, _, encoder in text_parts(pipe))):
        network.requires_grad_(False)
    photos = find_photos(config.photos)
    num_learned = len(photos) - (config.early_stop.num_photos if config.early_stop else 0)
    draws = _draws(config, pipe, photos[:num_learned], size_hw)
    held_out = _draws(config, pipe, photos[num_learned:], size_hw) if config.early_stop else None
    placeholder = add_placeholder(pipe, config)
    lora = add_lora(pipe.unet, config.lora, config.seed) if config.lora else []
    return ConceptModule(pipe, placeholder, draws, config, lora, held_out)


def _draws(config: ConceptConfig, pipe: Pipeline, photos: Sequence[Path], size_hw: tuple[int, int]) -> ConceptDraws:
    """The photos' views, encoded and weighted, with their captions."""
    emphasis = config.object_emphasis if config.learns == "object" else 0.0
    weigh = partial(
        object_weights,
        pipe,
        template=config.caption_templates[0],
        word=config.initializer_word,
        emphasis=emphasis,
        settings=AttentionConfig(attention_factors=config.attention_factors, attention_blocks=config.attention_blocks),
    )
    images = (load_photo(path) for path in photos)
    views = augmented_views(images, config.augment, size_hw, config.seed)
    pool = encode_views(pipe.vae, views, weigh if emphasis else None)
    captions = captions_of(photos, config.caption_templates, config.placeholder_token)
    texts = [tuple(text.format(config.placeholder_token) for text in own) for own in captions]
    by_view = [own for own in texts for _ in range(config.augment.views_per_photo)]
    return ConceptDraws(pool, by_view, batch_size=config.batch_size, seed=config.seed)


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
