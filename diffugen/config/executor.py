"""Settings of who generates and labels: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from diffugen.config.errors import SettingError
from diffugen.config.loader import Strict


class ExecutorConfig(Strict):
    """How generating and labelling are shared among workers. The files are the same, however many there are."""

    kind: Literal["local", "ray"] = Field(
        default="local",
        description="'local': processes on this machine; 'ray': a Ray cluster (pip install 'diffugen[ray]')",
    )
    num_workers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="worker processes (null: as many as the GPUs, or without GPUs the cores, are enough for)",
    )
    address: str | None = Field(
        default=None,
        min_length=1,
        description="of the Ray cluster: 'auto' (the one that this machine belongs to), 'HOST:PORT' or "
        "'ray://HOST:10001' (null: one is started on this machine)",
    )
    gpus_per_worker: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of a GPU that a worker takes, such as 0.5 for two workers on one GPU (null: 1, or 0 where "
        "there are no GPUs)",
    )
    shard_size: int = Field(
        default=64, ge=1, le=100_000, description="images that a worker takes at a time, rounded to whole batches"
    )

    @model_validator(mode="after")
    def _address_is_rays(self) -> ExecutorConfig:
        if self.address is not None and self.kind != "ray":
            raise SettingError("address", "is given, but only kind 'ray' has one; set kind, or remove the address")
        return self
