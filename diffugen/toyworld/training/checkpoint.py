"""Training checkpoints of the toy world: plain tensors and numbers, so that they load without unpickling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from diffugen.files import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any], step: int, losses: list[float]) -> None:
    """Write the state dicts of `state`'s modules and optimizers, atomically."""
    content = {name: part.state_dict() for name, part in state.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save({**content, "step": step, "losses": losses}, file)


def load_checkpoint(path: Path, state: dict[str, Any], device: torch.device) -> tuple[int, list[float]]:
    """Restore `state` in place if there is a checkpoint; return the number of steps done and their losses."""
    if not path.exists():
        return 0, []
    saved = torch.load(path, map_location=device, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return saved["step"], saved["losses"]
