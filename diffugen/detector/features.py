"""What a detector's backbone sees at an object: features of parts of images, weighted by heat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from diffugen.detector.model import network_of, trained_imgsz
from diffugen.devices import pick_device

if TYPE_CHECKING:
    from torch import Tensor
    from ultralytics import YOLO

NUM_SCALES = 3
"""Feature maps that count: the last of each of the coarsest strides, 8, 16 and 32 in YOLOv8."""

_STRIDE = 32


@torch.no_grad()
def object_features(
    yolo: YOLO,
    images: Sequence[np.ndarray],
    heats: Sequence[np.ndarray],
    *,
    imgsz: int | None = None,
    device: str = "auto",
) -> np.ndarray:
    """Features of each image's object: per scale the mean over the pixels, weighted by heat, of unit length.

    Args:
        yolo: from `load_detector`, no ONNX file; only its backbone runs.
        images: uint8 RGB [H, W, 3], of any sizes.
        heats: float [h, w] of each image, not negative, of any size: where the object is. What is below a map's mean
            does not count.
        imgsz: longest side that images are scaled to, pixels; None for the size that the detector was trained at.
        device: as in `ModelConfig`.

    Returns:
        float32 [n, scales, d], zeros behind the shorter scales' features.
    """
    network = network_of(yolo).float().eval().to(pick_device(device))
    layers = network.model[: len(network.yaml["backbone"])]
    side = imgsz or trained_imgsz(yolo)
    rows = []
    for image, heat in zip(images, heats, strict=True):
        maps = _feature_maps(layers, _scaled(image, side).to(next(network.parameters()).device))
        weights = torch.from_numpy(np.maximum(heat - heat.mean(), 0).astype(np.float32))[None, None]
        rows.append([_pooled(values, weights.to(values.device)) for values in maps])
    if not rows:
        return np.zeros((0, NUM_SCALES, 0), np.float32)
    width = max(len(part) for row in rows for part in row)
    padded = [[np.pad(part, (0, width - len(part))) for part in row] for row in rows]
    return np.array(padded, np.float32)


def _scaled(image: np.ndarray, side: int) -> Tensor:
    """An image as the network takes it: float32 [1, 3, H, W], both sides multiples of the stride."""
    height, width = (
        max(_STRIDE, round(length * side / max(image.shape[:2]) / _STRIDE) * _STRIDE) for length in image.shape[:2]
    )
    pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _feature_maps(layers: Sequence[torch.nn.Module], values: Tensor) -> list[Tensor]:
    """The last feature map of each of the coarsest sizes, the finest first."""
    by_height = {}
    for layer in layers:
        values = layer(values)
        by_height[values.shape[2]] = values
    return list(by_height.values())[-NUM_SCALES:]


def _pooled(values: Tensor, weights: Tensor) -> np.ndarray:
    shares = (
        F.adaptive_avg_pool2d(weights, values.shape[2:])
        if weights.shape[2] >= values.shape[2]
        else F.interpolate(weights, values.shape[2:], mode="bilinear")
    )
    pooled = (values * shares).sum((0, 2, 3)) / shares.sum().clamp(min=1e-12)
    return F.normalize(pooled, dim=0).cpu().numpy()
