"""Where the tests of tests/gpu run: on a GPU with a model of full size; or, to try the tests themselves out
(DIFFUGEN_GPU_TESTS_ON_CPU=1), on the CPU with a tiny one, where what only a GPU can show is not asserted."""

from __future__ import annotations

import gc
import os

import pytest
import torch

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
DTYPE = "float16" if ON_GPU else "float32"
SIDE = 512 if ON_GPU else 64
LATENT_HW = (SIDE // 8, SIDE // 8)

_TRIED_OUT = os.environ.get("DIFFUGEN_GPU_TESTS_ON_CPU") == "1"

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (ON_GPU or _TRIED_OUT), reason="torch finds no GPU"),
]


def release_memory() -> None:
    """Give back what earlier tests left, so that memory can be measured and limited."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def peak_bytes_since_reset() -> int:
    """Most GPU memory that tensors took; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() if ON_GPU else 0


def reset_peak() -> None:
    release_memory()
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
