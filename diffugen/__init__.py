"""Labelled images from diffusion models.

Nothing is reported to anybody: what libraries send home by default is turned off here, before any of them is imported.
"""

import os

for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, which diffusers imports wherever it is installed
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "WANDB_ERROR_REPORTING": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
