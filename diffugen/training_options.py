"""What ultralytics' trainer is told."""

from __future__ import annotations

from typing import Any

import torch

from .config import ConfigError, DetectorConfig


def training_options(config: DetectorConfig) -> dict[str, Any]:
    """The keywords of ultralytics' train(), for short runs from a trained base as for long ones."""
    return {
        "imgsz": config.imgsz,
        "epochs": config.epochs,
        "batch": config.batch_size,
        "nbs": config.batch_size,  # a step per batch: short runs have none to accumulate
        "device": device_name(config.device),
        "freeze": config.freeze or None,
        "optimizer": "AdamW",  # "auto" would ignore the rate
        "lr0": config.learning_rate,
        "lrf": 0.01,
        "cos_lr": True,
        "momentum": 0.9,
        "warmup_epochs": min(1.0, config.epochs / 10),
        "warmup_bias_lr": 0.0,  # the default is meant for SGD
        "warmup_momentum": 0.9,
        "mosaic": config.mosaic,
        "close_mosaic": config.epochs // 5,
        "scale": 0.3,
        "translate": 0.1,
        "fliplr": 0.5,
        "augmentations": _augmentations() if config.augment else [],
        "amp": False,  # its check would fetch weights
        "deterministic": True,
        "workers": 0,
        "val": False,
        "plots": False,
        "verbose": False,
        "patience": 0,
    }


def gpus(config: DetectorConfig) -> list[int]:
    """The numbers of the GPUs to train on; none on a CPU.

    Raises:
        ConfigError: one is not there, or named twice, or they cannot share the batch evenly.
    """
    name, there = device_name(config.device) or "cpu", torch.cuda.device_count()
    given = [] if name in ("cpu", "mps") else name.split(",")
    numbers = [int(number) for number in given if number.isdecimal()]
    if len(set(numbers)) < len(given) or any(number >= there for number in numbers):
        raise ConfigError(
            f"setting 'detector.device' is {config.device!r}, but there are {there} GPUs, numbered from 0; name each "
            "that is to be used once, or give 'auto' or 'cpu'"
        )
    if numbers and config.batch_size % len(numbers):
        raise ConfigError(
            f"setting 'detector.batch_size' is {config.batch_size}, which {len(numbers)} GPUs cannot share evenly; "
            "give a multiple of their number"
        )
    return numbers


def _augmentations() -> list[Any]:
    """Blur, noise, compression and light: what separates generated pictures from photos."""
    import albumentations as A

    return [
        A.OneOf(
            [
                A.GaussianBlur(blur_limit=(3, 5)),
                A.MotionBlur(blur_limit=(3, 5)),
                A.GaussNoise(std_range=(0.02, 0.06)),
            ],
            p=0.3,
        ),
        A.ImageCompression(quality_range=(60, 95), p=0.2),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.3),
    ]


def device_name(name: str) -> str | None:
    """ultralytics' name of a device; "auto" is the first GPU, else the CPU."""
    if name == "auto":
        return "0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return name.removeprefix("cuda:") if name.startswith("cuda:") else name.replace("cuda", "0")
