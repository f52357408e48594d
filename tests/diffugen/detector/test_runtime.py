"""What ultralytics is given before it predicts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from diffugen.detector.model import import_ultralytics
from diffugen.detector.runtime import use_compiled_nms

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
