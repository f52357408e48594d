"""FID and KID by torch-fidelity, for those who have its Inception weights at hand: nothing here fetches them."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from diffugen.errors import UserError

_KEYS = {"frechet_inception_distance": "fid", "kernel_inception_distance_mean": "kid"}


def check_inception(weights: Path) -> None:
    """Check that FID can be computed, before any long work.

    Raises:
        UserError: torch-fidelity is not installed, or the file is no file of plain tensors.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UserError("setting 'evaluation.inception_weights' needs torch-fidelity; install 'diffugen[fidelity]'")
    try:
        if weights.exists() and not weights.is_file():  # a FIFO would be waited for
            raise OSError("no regular file")
        # torch-fidelity would unpickle anything; a file that this accepts holds nothing but tensors
        torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError):
        raise UserError(
            f"setting 'evaluation.inception_weights': {weights} is no readable file of tensors; "
            "give torch-fidelity's pt_inception-2015-12-05 file, or leave the setting out"
        ) from None


def fid_and_kid(a: Sequence[np.ndarray], b: Sequence[np.ndarray], weights: Path) -> dict[str, float]:
    """Fréchet and kernel inception distance of two sets of images. FID falls with their number: compare equal ones.

    Args:
        a, b: uint8 RGB [H, W, 3], at least two each.
        weights: torch-fidelity's Inception weights.

    Returns:
        "fid" and "kid".

    Raises:
        UserError: as `check_inception`.
    """
    check_inception(weights)
    from torch_fidelity import calculate_metrics  # an extra

    found = calculate_metrics(
        input1=_Pixels(a), input2=_Pixels(b), fid=True, kid=True, kid_subset_size=min(len(a), len(b), 1000),
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
        cuda=torch.cuda.is_available(), cache=False, verbose=False, batch_size=1, save_cpu_ram=True,
    )  # fmt: skip
    return {name: float(found[key]) for key, name in _KEYS.items()}


class _Pixels(Dataset[torch.Tensor]):
    """Images as torch-fidelity takes them: uint8 [3, H, W]."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.images[index].transpose(2, 0, 1)))
