"""What ultralytics is given before it predicts."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffugen.detector.model import import_ultralytics
from diffugen.detector.runtime import device_name, use_compiled_nms
from diffugen.errors import UserError

ROOT = Path(__file__).parents[3]


def test_boxes_are_suppressed_as_torchvision_does() -> None:
    import_ultralytics()
    import torchvision
    from ultralytics.utils.nms import TorchNMS

    assert use_compiled_nms()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        corners = torch.rand((60, 2), generator=generator) * 50
        boxes = torch.cat([corners, corners + 20], dim=1)
        scores = (torch.rand(60, generator=generator) * 9).round() / 9  # many are equal
        wanted = torchvision.ops.nms(boxes, scores, 0.5)
        assert len(wanted) < 60 and torch.equal(TorchNMS.nms(boxes, scores, 0.5), wanted)


def test_predicting_imports_neither_torchvision_nor_diffusion_models(tmp_path: Path) -> None:
    """They take longer to import than one image takes."""
    photo = ROOT / "configs" / "demo" / "grand_piano"
    weights = ROOT / "diffugen" / "toyworld" / "weights" / "detector.safetensors"
    code = f"""
import sys
from diffugen.cli.main import main
assert main(["predict", {str(photo)!r}, "--weights", {str(weights)!r}, "--out", {str(tmp_path / "out")!r}]) == 0
print(sorted({{"torchvision", "torch._dynamo", "sympy", "diffusers", "transformers", "matplotlib.pyplot", "polars"}}
      & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_boxes_of_every_image_are_suppressed_however_slow_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics gives up after two seconds, and says that there is nothing on the rest of the batch."""
    import_ultralytics()
    from ultralytics.utils import nms

    hours = itertools.count(step=3600)
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: float(next(hours))))
    boxes = torch.tensor([[30.0, 30, 20, 20, 0.9, 0.1]]).T.expand(3, 6, 1)  # image, (x, y, w, h, class scores), box
    found = nms.non_max_suppression(boxes.clone(), 0.5, nc=2)
    assert [len(one) for one in found] == [1, 1, 1]


@pytest.mark.parametrize("name", ["99", "cuda:99", "cuda:x", "tpu"])
def test_a_device_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_name("cuda:1") == "1" == device_name("1") and device_name("0,1") == "0,1"
    with pytest.raises(UserError, match="the detector's device '.*' is not"):
        device_name(name)
