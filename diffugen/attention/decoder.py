"""Heat from a few drawn masks: an ensemble of small classifiers of pixels by a UNet's features.

The method is that of DatasetGAN (Zhang et al. 2021; Li et al. 2022, "BigDatasetGAN"): a few labelled images train small
networks on the features of a generator, which then labels images without end. Where the networks disagree, the label
is doubtful.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffugen.attention.features import num_features, read_features
from diffugen.attention.heatmaps import Heatmap, ImageAttention
from diffugen.diffusion.protocol import Pipeline
from diffugen.errors import UserError, reason_of
from diffugen.files import atomic_path
from diffugen.prompts.prompt import Prompt

NUM_MEMBERS = 5
_FORMAT = "diffugen decoder 1"
_WIDTHS = (64, 32)
_REMEDY = "give a file that `python -m diffugen.labelers.train_decoder` wrote"


class PixelDecoder(nn.Module):
    """An ensemble of small classifiers of pixels.

    Args:
        num_channels: of the features.
        class_names: what they tell apart, besides the background.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_channels: int, class_names: Sequence[str]) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.class_names = tuple(class_names)
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("std", torch.ones(num_channels))
        first, second = _WIDTHS
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(num_channels, first),
                nn.ReLU(),
                nn.Linear(first, second),
                nn.ReLU(),
                nn.Linear(second, 1 + len(class_names)),
            )
            for _ in range(NUM_MEMBERS)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities by each member.

        Args:
            features: float32 [channels, h, w] of one image, see `read_features`.

        Returns:
            float32 [members, 1 + classes, h, w]; the background comes first.
        """
        pixels = (features.flatten(1).T - self.mean) / self.std
        found = torch.stack([member(pixels).softmax(-1).T for member in self.members])
        return found.unflatten(-1, features.shape[1:])


def disagreement(probabilities: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the members at each pixel, in parts of the largest that there can be.

    Args:
        probabilities: float32 [members, 1 + classes, h, w].

    Returns:
        float32 [h, w] in [0, 1].
    """
    members, kinds = probabilities.shape[:2]
    of_mean = _entropy(probabilities.mean(0), 0)
    return ((of_mean - _entropy(probabilities, 1).mean(0)) / np.log(min(members, kinds))).clamp(0, 1)


def _entropy(probabilities: Tensor, dim: int) -> Tensor:
    return torch.special.entr(probabilities).sum(dim)


def check_decoder(path: Path, pipe: Pipeline) -> None:
    """Check that a decoder can be loaded and reads the features of this model.

    Raises:
        UserError: it cannot, or does not.
    """
    decoder, own = load_decoder(path, "cpu"), num_features(pipe.unet)
    if decoder.num_channels != own:
        raise UserError(
            f"decoder {path} reads {decoder.num_channels} features, but the model has {own}; train one for this model "
            "by `python -m diffugen.labelers.train_decoder`"
        )


@torch.no_grad()
def with_decoder(
    pipe: Pipeline,
    images: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    attention: Sequence[ImageAttention],
    path: Path,
    *,
    seed: int = 0,
    batch_size: int = 4,
) -> list[ImageAttention]:
    """The attention of images, with the decoder's heat for the classes that it knows.

    Costs three UNet passes per image.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        images: uint8 RGB [H, W, 3], generated or real.
        prompts: the caption of each, with the objects to look for.
        attention: of each, with one heatmap per entry of `prompt.objects`.
        path: of the decoder.
        seed: of the noise.
        batch_size: images that go through the model together; halved when the GPU runs out of memory.

    Returns:
        Per image its attention. The heat of a phrase whose class the decoder knows is the class's probability; several
        phrases of one class share it as they share attention. Where it is nowhere more likely than not, there is no
        heat: the object is absent. `certainty` is filled in, and presence is unknown (NaN): the words of a class that
        was drawn may be those of something similar.

    Raises:
        UserError: as `check_decoder`.
    """
    check_decoder(path, pipe)
    decoder = load_decoder(path, str(pipe._execution_device))
    known = [k for k, prompt in enumerate(prompts) if any(_knows(decoder, phrase) for phrase in prompt.objects)]
    found = list(attention)
    # a chunk at a time: features take much more room than heat
    for start in range(0, len(known), batch_size):
        part = known[start : start + batch_size]
        chosen = [images[k] for k in part], [prompts[k] for k in part]
        features = read_features(pipe, *chosen, seed=seed, batch_size=batch_size)
        for k, values in zip(part, features, strict=True):
            found[k] = _decoded(decoder, values, prompts[k], attention[k])
    return found


def _knows(decoder: PixelDecoder, phrase: Any) -> bool:
    return phrase.class_name in decoder.class_names


def _decoded(decoder: PixelDecoder, features: Tensor, prompt: Prompt, attention: ImageAttention) -> ImageAttention:
    probabilities = decoder(features)
    heat, doubt = probabilities.mean(0)[1:].cpu().numpy(), disagreement(probabilities).cpu().numpy()
    values = np.stack([heatmap.values for heatmap in attention.heatmaps])
    certainty = np.ones(len(values), np.float32)
    presence = None if attention.presence is None else attention.presence.copy()
    maps: list[Heatmap] = []
    for number, (phrase, heatmap) in enumerate(zip(prompt.objects, attention.heatmaps, strict=True)):
        if _knows(decoder, phrase):
            own = heat[decoder.class_names.index(phrase.class_name)]
            own = own * (own.max() >= 0.5)
            certainty[number] = 1 - float((own * doubt).sum()) / max(float(own.sum()), 1e-12)
            if presence is not None:
                presence[number] = np.nan
            rivals = [k for k, other in enumerate(prompt.objects) if other.class_name == phrase.class_name]
            most = values[rivals].max(0)
            share = np.divide(heatmap.values, most, out=np.ones_like(most), where=most > 0)
            heatmap = Heatmap(heatmap.phrase, (own * share).astype(np.float32))
        maps.append(heatmap)
    return replace(attention, heatmaps=tuple(maps), presence=presence, certainty=certainty)


def save_decoder(decoder: PixelDecoder, path: Path, record: Mapping[str, Any]) -> None:
    """Write the weights as safetensors, with the classes and the record of the training in the file's metadata."""
    metadata = {"format": _FORMAT, "classes": json.dumps(decoder.class_names), "record": json.dumps(record)}
    weights = {name: value.cpu().contiguous() for name, value in decoder.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata)


@cache
def load_decoder(path: Path, device: str) -> PixelDecoder:
    """Read what `save_decoder` wrote, ready to predict.

    Raises:
        UserError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise UserError(f"decoder {path} does not exist; {_REMEDY}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata.get("format") != _FORMAT:
            raise ValueError("not the weights of a decoder")
        decoder = PixelDecoder(len(weights["mean"]), json.loads(metadata["classes"]))
        decoder.load_state_dict(weights)
        if not all(torch.isfinite(value).all() for value in weights.values()):
            raise ValueError("weights that are no numbers")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"decoder {path} cannot be loaded ({reason_of(error)}); {_REMEDY}") from None
    return decoder.eval().to(device)
