"""Where models run."""

from __future__ import annotations

import pytest
import torch

from diffugen.detector.runtime import device_name
from diffugen.devices import pick_device
from diffugen.errors import UserError


def test_missing_devices_are_named() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"model.device 'cuda:99' is not on this machine"):
        pick_device("cuda:99")
    with pytest.raises(UserError, match=r"--device 'gpu' is not a device"):
        pick_device("gpu", "--device")


@pytest.mark.parametrize(
    ("gpus", "mps", "device", "theirs"), [(2, True, "cuda", "0"), (0, True, "mps", "mps"), (0, False, "cpu", "cpu")]
)
def test_diffusers_and_ultralytics_choose_the_same_device(
    monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool, device: str, theirs: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == device
    assert device_name("auto") == theirs
