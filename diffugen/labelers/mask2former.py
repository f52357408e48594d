"""Labels from Mask2Former, as transformers runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from diffugen.batching import map_batches
from diffugen.class_maps import class_index, mapped_classes
from diffugen.devices import pick_device
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.masks.matching import without_repeats
from diffugen.model_files import check_model_config, check_weights, loading

_STRIDE = 32  # the network's coarsest features; sides that it divides need no padding


class Mask2FormerLabeler:
    """Labels from a Mask2Former checkpoint (Cheng et al. 2022), by the paper's instance inference.

    Every query has a class distribution and a mask; its score is the probability of its class times the mean
    probability of the pixels in its mask. Where the class map merges classes their probabilities add up. A query
    is one object, of its likeliest class; queries that see the same object count once.

    Args:
        model: folder in transformers' format (config.json, model.safetensors), or a hub id.
        class_names: the dataset's classes; anything else is dropped. None: what the class map leads to, or
            without one all that the model knows.
        score_threshold: weaker objects are dropped.
        class_map: the model's class names -> the dataset's, many to one and partial; equal names need no entry.
        device: "auto", "cpu", "cuda:0".
        batch_size: images at a time; halved when the GPU runs out of memory.

    Raises:
        UserError: there is no such model, it is of another kind, or the classes do not fit it.
    """

    name = "mask2former"

    def __init__(
        self,
        model: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        score_threshold: float = 0.5,
        class_map: Mapping[str, str] | None = None,
        device: str = "auto",
        batch_size: int = 4,
    ) -> None:
        self.device = pick_device(device)
        self.model, self.processor = _load(model)
        self.model.to(self.device)
        self.model_names: dict[int, str] = self.model.config.id2label
        known = mapped_classes(self.model_names, None, class_map or {}, str(model))
        self.class_names = known if class_names is None else list(class_names)
        self.index = class_index(self.model_names, self.class_names, class_map)
        self.score_threshold = score_threshold
        self.batch_size = batch_size

    @property
    def known_classes(self) -> list[str]:
        """Those of `class_names` that the model knows, by itself or by the class map."""
        return [name for class_id, name in enumerate(self.class_names) if class_id in self.index.values()]

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, sorted by falling score; nothing but the image is looked at."""
        return map_batches([item.image for item in inputs], self.batch_size, self._label_batch)

    @torch.inference_mode()
    def _label_batch(self, images: list[np.ndarray]) -> list[Instances]:
        size_hw = (images[0].shape[0], images[0].shape[1])
        height, width = network_size(size_hw, dict(self.processor.size))
        pixels = self.processor(images, size={"height": height, "width": width}, return_tensors="pt")["pixel_values"]
        outputs = self.model(pixel_values=pixels.to(self.device))
        logits = zip(outputs.class_queries_logits.float(), outputs.masks_queries_logits.float(), strict=True)
        return [self._to_instances(classes, masks, size_hw) for classes, masks in logits]

    def _to_instances(
        self, class_logits: torch.Tensor, mask_logits: torch.Tensor, size_hw: tuple[int, int]
    ) -> Instances:
        """Of one image: class logits [queries, classes + 1] (the last: no object), mask logits [queries, h, w]."""
        scores, class_ids = self._class_probabilities(class_logits).max(dim=1)
        scores = scores * mask_certainty(mask_logits)
        order = scores.argsort(descending=True)
        order = order[scores[order] >= max(self.score_threshold, 1e-9)]  # what leads to no class scores zero
        masks = [
            functional.interpolate(mask_logits[query][None, None], size_hw, mode="bilinear")[0, 0] > 0
            for query in order
        ]
        found = Instances.from_masks(
            np.array([mask.cpu().numpy() for mask in masks], bool).reshape(-1, *size_hw),
            class_ids[order].cpu().numpy(),
            scores[order].cpu().numpy().clip(0, 1),
        )
        return without_repeats(found.subset(found.masks.any(axis=(1, 2))))

    def _class_probabilities(self, class_logits: torch.Tensor) -> torch.Tensor:
        """float32 [queries, dataset classes]."""
        probabilities = class_logits.softmax(dim=-1)
        merged = probabilities.new_zeros(len(probabilities), len(self.class_names))
        for model_id, class_id in self.index.items():
            merged[:, class_id] += probabilities[:, model_id]
        return merged


def mask_certainty(mask_logits: torch.Tensor) -> torch.Tensor:
    """Mean probability of the pixels inside each mask: float32 [n] of logits [n, h, w], 0 for empty masks."""
    inside = mask_logits > 0
    return (mask_logits.sigmoid() * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def network_size(size_hw: tuple[int, int], size: Mapping[str, int]) -> tuple[int, int]:
    """The size (height, width) at which the network sees an image: the processor's, in multiples of 32.

    transformers would pad to such multiples and stretch the masks by the padding afterwards.

    Args:
        size_hw: of the image.
        size: a processor's: "shortest_edge" and "longest_edge", or "height" and "width".
    """
    if "height" in size:
        wanted = (float(size["height"]), float(size["width"]))
    else:
        scale = size["shortest_edge"] / min(size_hw)
        if longest := size.get("longest_edge"):
            scale = min(scale, longest / max(size_hw))
        wanted = (size_hw[0] * scale, size_hw[1] * scale)
    height, width = (max(_STRIDE, round(side / _STRIDE) * _STRIDE) for side in wanted)
    return height, width


def _load(model: str | Path) -> tuple[Any, Any]:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

    with loading(f"Mask2Former {model}", "give a folder with config.json and model.safetensors, or a hub id"):
        values, _ = Mask2FormerConfig.get_config_dict(model)
        _check_config(values, model)
        network, loaded = Mask2FormerForUniversalSegmentation.from_pretrained(
            model, use_safetensors=True, output_loading_info=True
        )
        check_weights(network, loaded["missing_keys"], f"Mask2Former {model}")
        try:
            processor = Mask2FormerImageProcessor.from_pretrained(model)
        except OSError:  # a bare model: the values that all published ones have
            processor = Mask2FormerImageProcessor()
    return network.eval(), processor


def _check_config(values: Mapping[str, Any], model: str | Path) -> None:
    """Check a config before anything is built of it: some backbones are fetched, and code may be asked for."""
    if (kind := values.get("model_type")) != "mask2former":
        raise UserError(f"{model} is a model of the kind {kind!r}; give a Mask2Former")
    check_model_config(values, f"Mask2Former {model}: config.json")
    backbone = values.get("backbone_config")
    inner = backbone.get("model_type") if isinstance(backbone, Mapping) else None
    if values.get("backbone") or values.get("use_timm_backbone") or (backbone is not None and inner != "swin"):
        raise UserError(
            f"Mask2Former {model} has the backbone {values.get('backbone') or inner!r}, which would be fetched or is "
            "unknown; give a model with a Swin backbone in its own file"
        )
