"""Textual inversion as a Lightning module: the denoising loss, felt by the placeholder's rows alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffugen.diffusion.denoising import noise_schedule, prediction_target, scaled_latents, unet_conditions
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError
from textual_inversion.config import ConceptConfig
from textual_inversion.data import ConceptDraws, Draw
from textual_inversion.placeholder import Placeholder, limit_norm

_LOOK_EVERY = 50  # steps; to look at a loss makes a GPU wait

JUDGED_AT = (0.5, 0.75, 1.0)
"""Shares of the steps after which a judge scores the concept: each takes some images, and earlier the rate is high."""

LORA_LEARNING_RATE = 1e-4
"""Peak rate of the LoRA's weights: a fiftieth of the token's, as they change the whole model."""


class ConceptModule(L.LightningModule):
    """Learns a placeholder's rows (Gal et al., "An Image is Worth One Word", 2022), and a LoRA if asked.

    The pipeline's networks are frozen and held outside the module, so a checkpoint has only what is learned and
    the losses so far.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline with the placeholder added.
        placeholder: the rows to learn.
        draws: what the steps see.
        config: the concept's settings.
        lora: the UNet's LoRA parameters; empty without one.
        judge: scores what the pipeline draws; the step with the highest score is kept. Without one it is the last.
    """

    losses: Tensor
    scores: Tensor

    def __init__(
        self,
        pipe: Pipeline,
        placeholder: Placeholder,
        draws: ConceptDraws,
        config: ConceptConfig,
        lora: Sequence[nn.Parameter] = (),
        judge: Callable[[Pipeline], float] | None = None,
    ) -> None:
        super().__init__()
        self.rows = nn.ParameterList(placeholder.rows)
        self.lora = nn.ParameterList(lora)
        self.best = nn.ParameterList()
        self._pipe, self._draws, self._judge, self._config = pipe, draws, judge, config
        # Buffers, so that they are in every checkpoint and come back from other processes; nan where not reached.
        self.register_buffer("losses", torch.full((config.steps,), torch.nan))
        self._judged_at = sorted({max(1, round(share * config.steps)) for share in JUDGED_AT}) if judge else []
        if judge:
            self.register_buffer("scores", torch.full((len(self._judged_at),), torch.nan))
            learned = [*self.rows, *self.lora]
            self.best.extend(nn.Parameter(value.detach().clone(), requires_grad=False) for value in learned)
        self._max_norms = [config.max_norm_ratio and config.max_norm_ratio * norm for norm in placeholder.mean_norms]
        self._noise_schedule = noise_schedule(pipe)
        check_prediction_type(pipe)

    def on_fit_start(self) -> None:
        """Each of several processes has its own device, which Lightning knows for the module only."""
        self._pipe.to(self.device)

    def train_dataloader(self) -> DataLoader[Draw]:
        """The stream of draws, from the step at which training starts or goes on."""
        return DataLoader(self._draws.starting(self.global_step, self.global_rank), batch_size=None)

    def on_train_batch_start(self, draw: Draw, index: int) -> None:
        """Have the concept judged where it is time to."""
        self._have_judged(self.global_step)

    def training_step(self, draw: Draw, index: int) -> Tensor:
        """The loss of one draw."""
        loss = self.denoising_loss(draw)
        if self.global_step % _LOOK_EVERY == 0 and not torch.isfinite(loss):
            raise diverged(self._config, self.global_step)
        self.losses[self.global_step] = self.trainer.strategy.reduce(loss.detach())
        return loss

    def keep_best(self) -> dict[int, float]:
        """After the last step: the concept becomes what was judged best, where it is judged.

        Returns:
            The judge's scores by the number of steps before them.
        """
        if self._judge is None:
            return {}
        self._have_judged(self._config.steps)
        for learned, best in zip([*self.rows, *self.lora], self.best, strict=True):
            learned.data.copy_(best)
        return dict(zip(self._judged_at, self.scores.tolist(), strict=True))

    @torch.no_grad()
    def _have_judged(self, step: int) -> None:
        """Score the concept if it is time to, and keep it if it is the best so far."""
        if self._judge is None or step not in self._judged_at:
            return
        look = self._judged_at.index(step)
        if self.scores[look].isnan():
            self.scores[look] = self._judge(self._pipe)
            if int(self.scores.nan_to_num(-torch.inf).argmax()) == look:
                for learned, best in zip([*self.rows, *self.lora], self.best, strict=True):
                    best.copy_(learned)

    def denoising_loss(self, draw: Draw) -> Tensor:
        """Weighted mean squared error of the UNet's prediction, in the parametrisation that it was trained with."""
        unet, schedule = self._pipe.unet, self._noise_schedule
        clean, noise = scaled_latents(self._pipe.vae, draw["latents"].to(unet.device)), draw["noise"].to(unet.device)
        steps = (draw["timestep_fractions"] * schedule.config.num_train_timesteps).long().to(unet.device)
        noisy = schedule.add_noise(clean, noise, steps)
        predicted = unet(noisy.to(unet.dtype), steps, **self.conditions(draw["captions"], clean)).sample
        errors = (predicted.float() - prediction_target(schedule, clean, noise, steps)).square()
        return (errors * draw["weights"].to(unet.device)).mean()

    def conditions(self, captions: list[str], latents: Tensor) -> dict[str, Any]:
        """Captions as the pipeline itself encodes them, in the UNet's dtype: its keyword arguments."""
        factor = self._pipe.vae_scale_factor
        size_hw = latents.shape[2] * factor, latents.shape[3] * factor
        return _cast(unet_conditions(self._pipe, {"prompt": captions}, size_hw), self._pipe.unet.dtype)

    def configure_optimizers(self) -> Any:
        """Adam without weight decay (it would pull the rows to zero), its rate falling along a cosine."""
        groups: list[dict[str, Any]] = [{"params": list(self.rows), "lr": self._config.learning_rate}]
        if self.lora:
            groups.append({"params": list(self.lora), "lr": LORA_LEARNING_RATE})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(step / self._config.steps, 1)))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step, after which the rows are within their norm, where one is set."""
        super().optimizer_step(*args, **kwargs)
        for rows, max_norm in zip(self.rows, self._max_norms, strict=True):
            if max_norm:
                limit_norm(rows, max_norm)


def diverged(config: ConceptConfig, step: int) -> UserError:
    """What to say where the loss, or what was learned, is no number any more."""
    return UserError(
        f"concept {config.placeholder_token}: the loss is no number by step {step}; lower concept.learning_rate, or "
        'set model.dtype to "float32", and give another folder or remove this one'
    )


def _cast(conditions: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: _cast(value, dtype) if isinstance(value, dict) else value.to(dtype) for name, value in conditions.items()
    }


def check_prediction_type(pipe: Pipeline) -> None:
    """Raise UserError for a model whose training target is not known."""
    kind = pipe.scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise UserError(
            f"model.path: the model's scheduler predicts {kind!r}; textual inversion needs a model "
            "that predicts epsilon, v_prediction or sample"
        )
