"""The learned outliner: a small class-agnostic network, see `diffugen.labelers.train_outliner`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from diffugen.devices import pick_device
from diffugen.masks.outline.base import Outline, OutlinePrompt
from diffugen.masks.outline.network import WORKING_SIZE, load_network
from diffugen.masks.outline.window import Window, network_input


class LearnedOutliner:
    """Outlines by a network that was trained on common things and knows no class.

    Args:
        weights: a file that `python -m diffugen.labelers.train_outliner` wrote.
        device: "auto", "cpu", "cuda:0".

    Raises:
        UserError: there is no such file, or it is something else.
    """

    def __init__(self, weights: str | Path, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.network = load_network(Path(weights)).to(self.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt; all objects of the image go through the network together."""
        if not prompts:
            return []
        windows = [Window.around(prompt.mask > 0, image.shape[:2]) for prompt in prompts]
        inputs = [network_input(image, *pair, WORKING_SIZE) for pair in zip(prompts, windows, strict=True)]
        batch = torch.from_numpy(np.stack(inputs)).to(self.device, memory_format=torch.channels_last)
        logits, iou_logits = self.network(batch)
        found = logits.sigmoid().cpu().numpy()
        confidences = iou_logits.sigmoid().tolist()
        return [
            Outline(window.paste(values), confidence)
            for window, values, confidence in zip(windows, found, confidences, strict=True)
        ]
