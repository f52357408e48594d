"""Which device a model runs on."""

from __future__ import annotations

import torch

from diffugen.errors import UserError


def pick_device(name: str = "auto", setting: str = "model.device") -> torch.device:
    """The device of that name; "auto" is the first GPU, else Apple's, else the CPU.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1" or "mps".
        setting: where the name comes from, for messages.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{setting} {name!r} is not a device; use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from None
    num_devices = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(_has_mps())}.get(device.type, 0)
    if (device.index or 0) >= num_devices:
        raise UserError(f"{setting} {name!r} is not on this machine; use 'auto' for what there is")
    return device


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
