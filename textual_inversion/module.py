"""Textual inversion as a Lightning module: the denoising loss, felt by the placeholder's rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffugen.config import ConfigError
from textual_inversion.concept_data import ConceptDraws, Draw
from textual_inversion.config import ConceptConfig
from textual_inversion.embeddings import Placeholder, limit_norm


class ConceptModule(L.LightningModule):
    """Learns a placeholder's rows (Gal et al., "An Image is Worth One Word", 2022), and a LoRA if asked.

    The pipeline's networks are frozen and held outside the module, so a checkpoint has only what is learned.

    Args:
        pipe: a Stable Diffusion pipeline with the placeholder added, on its device.
        placeholder: the rows to learn.
        draws: what the steps see.
        config: the concept's settings.
        lora: the UNet's LoRA parameters; empty without one.
    """

    def __init__(
        self,
        pipe: Any,
        placeholder: Placeholder,
        draws: ConceptDraws,
        config: ConceptConfig,
        lora: Sequence[nn.Parameter] = (),
    ) -> None:
        super().__init__()
        self.rows = placeholder.rows
        self.lora = nn.ParameterList(lora)
        self.losses: list[float] = []
        self._pipe, self._draws, self._config = pipe, draws, config
        self._max_norm = config.max_norm_ratio and config.max_norm_ratio * placeholder.mean_norm
        self._noise_schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        check_prediction_type(pipe)

    def train_dataloader(self) -> DataLoader[Draw]:
        """The stream of draws, from the step at which training starts or goes on."""
        draws = self._draws
        rest = ConceptDraws(
            draws.pool, draws.captions, batch_size=draws.batch_size, seed=draws.seed, first=self.global_step
        )
        return DataLoader(rest, batch_size=None)

    def training_step(self, draw: Draw, _: int) -> Tensor:
        """The loss of one draw."""
        loss = self.denoising_loss(draw)
        self.losses.append(loss.item())
        return loss

    def denoising_loss(self, draw: Draw) -> Tensor:
        """Mean squared error of the UNet's prediction, in the parametrisation that it was trained with."""
        unet, schedule = self._pipe.unet, self._noise_schedule
        clean, noise = self._scaled(draw["latents"].to(unet.device)), draw["noise"].to(unet.device)
        steps = (draw["timestep_fractions"] * schedule.config.num_train_timesteps).long().to(unet.device)
        noisy = schedule.add_noise(clean, noise, steps)
        words = self.encode(draw["captions"])
        predicted = unet(noisy.to(unet.dtype), steps, encoder_hidden_states=words.to(unet.dtype)).sample
        return nn.functional.mse_loss(predicted.float(), self._target(clean, noise, steps))

    def encode(self, captions: list[str]) -> Tensor:
        """Captions as the pipeline itself encodes them: float32 [batch, length, dim]."""
        embeds, _ = self._pipe.encode_prompt(captions, self._pipe.unet.device, 1, False)
        return embeds

    def _scaled(self, latents: Tensor) -> Tensor:
        config = self._pipe.vae.config
        return (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor

    def _target(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        match self._noise_schedule.config.prediction_type:
            case "epsilon":
                return noise
            case "v_prediction":
                return self._noise_schedule.get_velocity(clean, noise, steps)
            case _:
                return clean

    def configure_optimizers(self) -> Any:
        """Adam without weight decay (it would pull the rows to zero), its rate falling along a cosine."""
        groups: list[dict[str, Any]] = [{"params": [self.rows], "lr": self._config.learning_rate}]
        if self._config.lora:
            groups.append({"params": list(self.lora), "lr": self._config.lora.learning_rate})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(step / self._config.steps, 1)))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step, after which the rows are within their norm, where one is set."""
        super().optimizer_step(*args, **kwargs)
        if self._max_norm:
            limit_norm(self.rows, self._max_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The loss curve so far goes into the checkpoint."""
        checkpoint["losses"] = list(self.losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the loss curve up again."""
        self.losses = list(checkpoint["losses"])


def check_prediction_type(pipe: Any) -> None:
    """Raise ConfigError for a model whose training target is not known."""
    kind = pipe.scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise ConfigError(
            f"model.path: the model's scheduler predicts {kind!r}; textual inversion needs a model "
            "that predicts epsilon, v_prediction or sample"
        )
