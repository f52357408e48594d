"""What tests of concept training share: what was learned, and a training that is cut off."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from diffugen.diffusion.embeddings import read_embedding
from textual_inversion.module import ConceptModule


def learned_rows(path: Path, token: str = "<grand-piano>") -> torch.Tensor:
    (rows,) = read_embedding(path)[token]
    return rows


@contextmanager
def stopped_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """Training inside the block is cut off at this step."""
    train = ConceptModule.training_step

    def stop(self, draw, index):
        if self.global_step == step:
            raise RuntimeError("stopped")
        return train(self, draw, index)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(ConceptModule, "training_step", stop)
        yield
