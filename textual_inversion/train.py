"""Learning a concept: from photos and a model to `learned_embeds.safetensors`, through kills and restarts."""

from __future__ import annotations

import logging
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from diffugen.config import ConfigError, ModelConfig
from diffugen.embeddings import write_embedding
from diffugen.files import atomic_path, read_json, write_json, write_text
from diffugen.pipelines import load_pipeline, pick_device
from textual_inversion.concept_data import (
    ConceptDraws,
    augmented_views,
    digest,
    encode_views,
    find_photos,
    load_photo,
)
from textual_inversion.config import ConceptConfig
from textual_inversion.embeddings import add_placeholder, check_tokens, merge_placeholder
from textual_inversion.lora import add_lora, save_lora
from textual_inversion.module import ConceptModule, check_prediction_type
from textual_inversion.pictures import draw_loss_curve, generate_samples, side_by_side

logger = logging.getLogger(__name__)

EMBEDDING_FILE = "learned_embeds.safetensors"
LORA_FILE = "lora.safetensors"
RECORD_FILE = "concept.json"
_PRECISIONS: Mapping[str, Any] = {"float32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}


def check_concept(config: ConceptConfig, pipe: Any | None = None) -> None:
    """Check what the user gave before any work starts.

    Args:
        config: the concept.
        pipe: the pipeline that will learn it; without one only the photos are checked.

    Raises:
        ConfigError: one sentence that names the setting: an empty folder, an unreadable photo, a word that
            the model does not know, a token that it knows already, a template that is too long, a model of a
            kind that cannot learn.
    """
    for path in find_photos(config.photos):
        load_photo(path)
    if pipe is None:
        return
    if getattr(pipe, "text_encoder_2", None) is not None:
        raise ConfigError("model.path: the model has several text encoders; give one that has one")
    check_prediction_type(pipe)
    check_tokens(config, pipe.tokenizer)


def learn_concept(
    config: ConceptConfig, model: ModelConfig, out: Path, *, seed: int | None = None, progress: bool = True
) -> Path:
    """Learn a concept from photos by textual inversion.

    A killed call goes on where its last checkpoint was, and ends with the same file (bit for bit on a CPU);
    a finished one returns at once.

    Args:
        config: the concept.
        model: the diffusion model that learns it.
        out: folder for the embedding (diffusers' format), `lora.safetensors` if asked for, `loss.csv`,
            `loss.png`, `samples.png` (the same prompts and seeds without and with the concept) and
            `concept.json` (what it was learned from).
        seed: overrides `config.seed`.
        progress: show a progress bar.

    Returns:
        The path of `learned_embeds.safetensors`; it is the last file to be written.

    Raises:
        ConfigError: as `check_concept`, or `out` holds a concept learned with other settings.
    """
    out = Path(out)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    finished = out / EMBEDDING_FILE
    record = _record(config, model)
    _check_same_concept(record, out)
    if finished.exists():
        return finished

    pipe = load_pipeline(_for_training(model))
    check_concept(config, pipe)
    write_json(out / RECORD_FILE, record)
    size_hw = _size_hw(config, pipe)
    without = generate_samples(pipe, config, config.initializer_word, size_hw)
    module = _build_module(config, pipe, size_hw)
    _fit(module, config, model, out, progress)

    merge_placeholder(pipe)
    _write_losses(module.losses, out)
    if config.lora:
        save_lora(pipe.unet, out / LORA_FILE)
    if config.samples.num_images:
        with_ = generate_samples(pipe, config, config.placeholder_token, size_hw)
        with atomic_path(out / "samples.png") as temporary:
            side_by_side(config, without, with_).save(temporary)
    write_embedding(finished, {config.placeholder_token: module.rows})
    shutil.rmtree(_checkpoint(out).parent, ignore_errors=True)
    logger.info("learned %s: %s", config.placeholder_token, finished)
    return finished


def _for_training(model: ModelConfig) -> ModelConfig:
    """The model as training needs it: nothing offloaded, and float32 on a CPU, where halves are slow."""
    update: dict[str, Any] = {"cpu_offload": False}
    if pick_device(model.device).type == "cpu":
        update["dtype"] = "float32"
    return model.model_copy(update=update)


def _size_hw(config: ConceptConfig, pipe: Any) -> tuple[int, int]:
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    factor = pipe.vae_scale_factor
    return config.height or height * factor, config.width or width * factor


def _build_module(config: ConceptConfig, pipe: Any, size_hw: tuple[int, int]) -> ConceptModule:
    """The pipeline frozen but for the placeholder (and the LoRA), and the photos as latents."""
    if pipe.get_list_adapters():  # a LoRA of the model's own: part of the frozen weights from here on
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    for network in (pipe.vae, pipe.unet, pipe.text_encoder):
        network.requires_grad_(False)
    photos = [load_photo(path) for path in find_photos(config.photos)]
    pool = encode_views(pipe.vae, augmented_views(photos, config.augment, size_hw, config.seed))
    placeholder = add_placeholder(pipe, config)
    lora = add_lora(pipe.unet, config.lora, config.seed) if config.lora else []
    words = " ".join(placeholder.tokens)
    captions = [template.format(words) for template in config.templates]
    draws = ConceptDraws(pool, captions, batch_size=config.batch_size, seed=config.seed)
    return ConceptModule(pipe, placeholder, draws, config, lora)


def _fit(module: ConceptModule, config: ConceptConfig, model: ModelConfig, out: Path, progress: bool) -> None:
    """Train to the last step, from the last checkpoint if there is one."""
    checkpoint = _checkpoint(out)
    device = pick_device(model.device)
    save = ModelCheckpoint(
        dirpath=checkpoint.parent,
        filename=checkpoint.stem,
        every_n_train_steps=config.checkpoint_every,
        enable_version_counter=False,
    )
    bar = [_ProgressBar(config)] if progress else []
    with _quiet_lightning():
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=_PRECISIONS["float32" if device.type == "cpu" else model.dtype],
            max_steps=config.steps,
            callbacks=[save, *bar],
            plugins=[_AtomicCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        resume_from = str(checkpoint) if checkpoint.exists() else None
        with _interrupts_pass():
            trainer.fit(module, ckpt_path=resume_from, weights_only=True)


def _checkpoint(out: Path) -> Path:
    return out / "checkpoints" / "latest.ckpt"


class _AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's own writer goes by way of the system's temporary folder; a kill can leave half a file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class _ProgressBar(Callback):
    """One bar over the steps, with the mean of the last 20 losses."""

    def __init__(self, config: ConceptConfig) -> None:
        self._steps, self._name = config.steps, config.placeholder_token
        self._bar: tqdm | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar = tqdm(total=self._steps, initial=trainer.global_step, desc=f"concept {self._name}", unit="step")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._bar is not None and isinstance(pl_module, ConceptModule):
            recent = pl_module.losses[-20:]
            self._bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}", refresh=False)
            self._bar.update()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, device tables, and advice on loader workers (our draws need none)."""
    chatter = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in chatter]
    for log in chatter:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for log, level in zip(chatter, levels, strict=True):
            log.setLevel(level)


@contextmanager
def _interrupts_pass() -> Iterator[None]:
    """Lightning turns Ctrl-C into exit code 1 and ignores further ones; give the caller the interrupt."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


def _record(config: ConceptConfig, model: ModelConfig) -> dict[str, Any]:
    """Everything that decides the result. Photos count by their bytes: a folder that moved is the same."""
    return {
        "concept": config.model_dump(mode="json", exclude={"photos"}),
        "photos": digest(find_photos(config.photos)),
        "model": model.model_dump(mode="json", exclude={"device", "cpu_offload", "vae_slicing"}),
    }


def _check_same_concept(record: dict[str, Any], out: Path) -> None:
    """Refuse to go on in a folder that was begun with other settings or photos."""
    path = out / RECORD_FILE
    if not path.exists():
        return
    before, now = _leaves(read_json(path)), _leaves(record)
    for key in now:
        if before.get(key) != now[key]:
            raise ConfigError(
                f"{str(out)!r} holds a concept that was begun with other settings ({key} was "
                f"{before.get(key)!r} and is now {now[key]!r}); give another folder, or remove that one"
            )


def _leaves(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted.key -> value."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _write_losses(losses: list[float], out: Path) -> None:
    rows = (f"{step},{loss:.6f}\n" for step, loss in enumerate(losses, start=1))
    write_text(out / "loss.csv", "step,loss\n" + "".join(rows))
    with atomic_path(out / "loss.png") as temporary:
        draw_loss_curve(losses).save(temporary)
