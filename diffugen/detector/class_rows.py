"""What a detector knows about several classes, as one class of a dataset, before it is fine-tuned.

ultralytics carries the head's rows over by class name, so a dataset's class would know only what the class of its own
name knew: "car" of COCO, but neither "truck" nor "bus".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from diffugen.class_maps import shown
from diffugen.errors import UserError

if TYPE_CHECKING:
    from ultralytics import YOLO

_BACKGROUND = 0.01  # what a place without any object weighs
_STEPS = 60
_RIDGE = 10.0  # how much the fitted row holds on to its start; with less, few images decide too much


def check_class_map(names: Mapping[int, str], class_map: Mapping[str, Sequence[str]], setting: str) -> None:
    """Refuse a map with classes that the detector does not have.

    Raises:
        UserError: names the setting and the class.
    """
    for own, theirs in class_map.items():
        for name in theirs:
            if name not in names.values():
                raise UserError(
                    f"setting '{setting}.{own}' has the class {name!r}, which the detector does not know; it knows "
                    f"{shown(list(names.values()))}"
                )


def carry_rows(yolo: YOLO, class_map: Mapping[str, Sequence[str]], images: Sequence[np.ndarray], imgsz: int) -> None:
    """Give a segmenter a row for each class of a dataset that stands for several of its own classes.

    Args:
        yolo: from `load_detector`, changed in place: one of the classes takes the dataset's name and the joint row.
        class_map: class of the dataset -> the segmenter's classes; each of those in one entry at most.
        images: uint8 [H, W, 3] RGB, of the kind that it will see; some dozens suffice.
        imgsz: longer side that images are scaled to, pixels.

    Raises:
        UserError: the segmenter does not have a class.
    """
    names = dict(yolo.names)
    check_class_map(names, class_map, "detector.class_map")
    number_of = {name: number for number, name in names.items()}
    sources = {own: [number_of[name] for name in theirs] for own, theirs in class_map.items() if theirs}
    place = _places(number_of, sources)
    layers = _last_layers(yolo)
    for layer, features in zip(layers, _features(yolo, layers, images, imgsz), strict=True):
        weights, biases = layer.weight.detach()[:, :, 0, 0].clone(), layer.bias.detach().clone()
        for own, numbers in sources.items():
            weight, bias = joint_row(weights[numbers], biases[numbers], features)
            with torch.no_grad():
                layer.weight[place[own], :, 0, 0], layer.bias[place[own]] = weight, bias
    new = {_same(own) for own in place}
    others = {number: "" if _same(name) in new else name for number, name in names.items()}
    yolo.model.names = others | {number: own for own, number in place.items()}


def joint_row(weights: torch.Tensor, biases: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A row [c] and its bias that answer like the strongest of several rows [k, c] on features [n, c].

    A linear layer cannot take a maximum. The row is fitted to it by logistic regression on its probabilities. Where the
    features say nothing it stays near the shortest row that grows along each of the rows as that one does.
    """
    if len(weights) == 1:
        return weights[0], biases[0]
    products = weights @ weights.T
    start, first = weights.T @ (torch.linalg.pinv(products) @ products.diagonal()), biases.max()
    wanted = torch.sigmoid((features @ weights.T + biases).amax(dim=1))
    share = wanted + _BACKGROUND  # most places show background
    size = features.square().mean().sqrt()
    change = torch.zeros(len(start) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = features @ (start + change[:-1]) + first + change[-1]
        value = (binary_cross_entropy_with_logits(logits, wanted, reduction="none") * share).sum()
        value = value + _RIDGE * ((change[:-1] * size).square().sum() + change[-1] ** 2)
        value.backward()
        return value

    if len(features):
        with torch.enable_grad():
            optimizer.step(loss)
    return start + change.detach()[:-1], first + change.detach()[-1]


@torch.no_grad()
def _features(
    yolo: YOLO, layers: Sequence[torch.nn.Module], images: Sequence[np.ndarray], imgsz: int
) -> list[torch.Tensor]:
    """What each layer is given for the images: float32 [n, c] each."""
    given: dict[torch.nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: given[layer].append(inputs[0].flatten(2)[0].T.clone()))
        for layer in layers
    ]
    network = yolo.model.eval()
    for image in images:
        scale = imgsz / max(image.shape[:2])
        size_wh = [max(32, round(side * scale / 32) * 32) for side in image.shape[1::-1]]
        pixels = cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR)
        network(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    for hook in hooks:
        hook.remove()
    return [torch.cat(given[layer]) if given[layer] else torch.zeros(0, layer.in_channels) for layer in layers]


def _places(number_of: Mapping[str, int], sources: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Where each joint row goes: to the class of the same name, else to a source, else to any other class."""
    place = {own: number_of[own] for own in sources if own in number_of}
    for own, numbers in sources.items():
        if own not in place:
            place[own] = next(n for n in (*numbers, *number_of.values()) if n not in place.values())
    return place


def _same(name: str) -> str:
    """What ultralytics compares of a name."""
    return name.strip().lower()


def class_branches(yolo: YOLO) -> list[torch.nn.Module]:
    """The branches of the head that tell classes, one of each scale and way of matching."""
    head = yolo.model.model[-1]
    branches = (getattr(head, name, None) or () for name in ("cv3", "one2one_cv3"))
    return [layers for branch in branches for layers in branch]


def _last_layers(yolo: YOLO) -> list[torch.nn.Conv2d]:
    """The layers of the head that end in a channel per class."""
    return [layers[-1] for layers in class_branches(yolo)]
