"""Running a concept's training by Lightning: devices, precision, checkpoints, a progress bar, interrupts."""

from __future__ import annotations

import logging
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

from diffugen.batching import is_out_of_memory
from diffugen.checksums import is_intact
from diffugen.config.settings import ModelConfig
from diffugen.devices import pick_device
from diffugen.errors import UserError
from diffugen.files import atomic_path
from diffugen.progress import Bar, progress_bar
from textual_inversion.config import ConceptConfig
from textual_inversion.module import ConceptModule

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY = 50
"""Steps between checkpoints, from which a killed run resumes, but at most a quarter of all: a small file each."""

_PRECISIONS: Mapping[str, Any] = {"float32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}


def for_training(model: ModelConfig) -> ModelConfig:
    """The model as training needs it: nothing offloaded, and its weights in float32 on a CPU."""
    update: dict[str, Any] = {"low_memory": False}
    if pick_device(model.device).type == "cpu":
        update["dtype"] = "float32"
    return model.model_copy(update=update)


def precision(model: ModelConfig) -> Any:
    """Lightning's name for the mixed precision that the model's dtype asks for; a CPU has no float16."""
    on_cpu = pick_device(model.device).type == "cpu"
    return _PRECISIONS["float32" if on_cpu and model.dtype == "float16" else model.dtype]


def check_devices(config: ConceptConfig, model: ModelConfig) -> None:
    """Raise UserError when there are not as many devices as the concept is to be learned on."""
    device = pick_device(model.device)
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type)
    if available is not None and config.num_devices > available:
        raise UserError(
            f"concept.num_devices is {config.num_devices}, but there are {available} of {device.type!r}; lower it"
        )


def checkpoint_path(out: Path) -> Path:
    """Where the training in `out` has its checkpoint."""
    return out / "checkpoints" / "latest.ckpt"


def fit(module: ConceptModule, config: ConceptConfig, model: ModelConfig, out: Path, progress: bool) -> None:
    """Train to the last step, from the last checkpoint if there is one."""
    checkpoint = checkpoint_path(out)
    save = ModelCheckpoint(
        dirpath=checkpoint.parent,
        filename=checkpoint.stem,
        every_n_train_steps=max(1, min(CHECKPOINT_EVERY, config.steps // 4)),
        enable_version_counter=False,
    )
    bar = [_ProgressBar(config)] if progress else []
    with _quiet_lightning():
        trainer = L.Trainer(
            **_devices(config, pick_device(model.device)),
            precision=precision(model),
            max_steps=config.steps,
            callbacks=[save, *bar],
            plugins=[_AtomicCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        resume_from = _intact(checkpoint)
        try:
            with _interrupts_pass():
                trainer.fit(module, ckpt_path=resume_from, weights_only=True)
        except RuntimeError as error:
            if not is_out_of_memory(error, config.batch_size):
                raise
            raise UserError(
                f"concept.batch_size {config.batch_size} is too much for the GPU's memory; lower it, and give another "
                "folder or remove this one"
            ) from None


def _intact(checkpoint: Path) -> str | None:
    """The checkpoint to go on from; None where there is none, or it is damaged."""
    if not checkpoint.exists():
        return None
    if is_intact(checkpoint):
        return str(checkpoint)
    logger.warning("%s is damaged; the concept is learned from the start", checkpoint)
    checkpoint.unlink()
    return None


def _devices(config: ConceptConfig, device: torch.device) -> dict[str, Any]:
    """Where Lightning trains. Several processes are started from this one, which has the models already."""
    accelerator = "gpu" if device.type == "cuda" else device.type
    if config.num_devices > 1:
        # Not forked: a fork of a process that has used a GPU fails, and of one that has used OpenMP's threads hangs.
        return {"accelerator": accelerator, "devices": config.num_devices, "strategy": "ddp_spawn"}
    return {"accelerator": accelerator, "devices": [device.index or 0] if device.type == "cuda" else 1}


class _AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's own writer goes by way of the system's temporary folder; a kill can leave half a file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class _ProgressBar(Callback):
    """One bar over the steps, with the mean of the last 20 losses."""

    def __init__(self, config: ConceptConfig) -> None:
        self._steps, self._name = config.steps, config.placeholder_token
        self._bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._bar = progress_bar(
                total=self._steps, initial=trainer.global_step, desc=f"concept {self._name}", unit="step"
            )

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._bar is None or not isinstance(pl_module, ConceptModule):
            return
        step = trainer.global_step
        if step % 20 == 0 and step > self._bar.n:  # reading a loss makes a GPU wait
            self._bar.set_postfix(loss=f"{pl_module.losses[step - 20 : step].nanmean():.4f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()  # so that what is printed next has its own line

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
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
