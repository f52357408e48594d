"""Values that are no numbers (NaN, infinity), as half precision makes them: found where they arise, with the remedy.

Further on they would be black images and labels of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffugen.errors import UserError

_REMEDY = {
    torch.float16: 'half precision overflowed; set model.dtype to "bfloat16" or "float32"',
    torch.bfloat16: 'set model.dtype to "float32"; if it stays, the files of the model are damaged: fetch them again',
    torch.float32: "the files of the model, its LoRA or its embeddings are damaged; fetch them again",
}


def check_finite(values: Tensor, maker: str, dtype: torch.dtype) -> None:
    """Check what a network made.

    Args:
        values: its output.
        maker: the network, for the message: "the UNet".
        dtype: its precision.

    Raises:
        UserError: a value is NaN or infinite.
    """
    if not torch.isfinite(values).all():
        raise UserError(
            f"{maker} made values that are no numbers in {str(dtype).removeprefix('torch.')}: {_REMEDY[dtype]}"
        )


@contextmanager
def checked_decoder(pipe: Any) -> Iterator[None]:
    """Check what goes into the VAE's decoder and what comes out of it, for the length of the block.

    Raises:
        UserError: either has values that are no numbers.
    """

    def check(decoder: torch.nn.Module, inputs: tuple[Tensor, ...], image: Tensor) -> None:
        check_finite(inputs[0], "the UNet", pipe.unet.dtype)
        check_finite(image, "the VAE's decoder", image.dtype)

    hook = pipe.vae.decoder.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()
