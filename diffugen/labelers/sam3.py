"""Labels by phrases from SAM 3 (Carion et al., Segment Anything with Concepts, 2025), as transformers runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffugen.batching import map_batches
from diffugen.devices import pick_device
from diffugen.errors import UserError
from diffugen.instances import Instances
from diffugen.labelers.base import LabelInput
from diffugen.masks.matching import without_repeats
from diffugen.model_files import check_model_config, check_weights, loading

_KINDS = ("sam3", "sam3_video")  # the latter is what the published checkpoint calls itself


class Sam3Labeler:
    """All objects in an image that a phrase names, of every class.

    Args:
        model: folder in transformers' format (config.json, model.safetensors, the processor's files), or a hub id.
        phrases: class -> what to look for, one phrase or several; objects that several phrases find count once.
        class_names: the dataset's classes.
        score_threshold: weaker objects are dropped.
        device: "auto", "cpu", "cuda:0".
        batch_size: images at a time; halved when the GPU runs out of memory.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """

    name = "sam3"

    def __init__(
        self,
        model: str | Path,
        phrases: Mapping[str, Sequence[str]],
        class_names: Sequence[str],
        *,
        score_threshold: float = 0.5,
        device: str = "auto",
        batch_size: int = 4,
    ) -> None:
        self.device = pick_device(device)
        self.model, self.processor = _load(str(model))
        self.model.to(self.device)
        self.phrases = [(class_names.index(name), text) for name, texts in phrases.items() for text in texts]
        self.score_threshold = score_threshold
        self.batch_size = batch_size

    def label(self, inputs: Sequence[LabelInput]) -> list[Instances]:
        """One Instances per input, sorted by falling score; nothing but the image is looked at."""
        return map_batches([item.image for item in inputs], self.batch_size, self._label_batch)

    @torch.inference_mode()
    def _label_batch(self, images: list[np.ndarray]) -> list[Instances]:
        size_hw = images[0].shape[:2]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        seen = self.model.get_vision_features(pixels.to(self.device))  # once for all phrases
        parts: list[list[Instances]] = [[Instances.empty(size_hw)] for _ in images]
        for class_id, phrase in self.phrases:
            words = self.processor(text=[phrase] * len(images), return_tensors="pt")
            found = self.model(
                vision_embeds=seen,
                input_ids=words["input_ids"].to(self.device),
                attention_mask=words["attention_mask"].to(self.device),
            )
            results = self.processor.post_process_instance_segmentation(
                found, threshold=self.score_threshold, target_sizes=[size_hw] * len(images)
            )
            for own, result in zip(parts, results, strict=True):
                masks = result["masks"].cpu().numpy().astype(bool).reshape(-1, *size_hw)
                scores = result["scores"].float().cpu().numpy().clip(0, 1)
                own.append(Instances.from_masks(masks, [class_id] * len(masks), scores))
        return [_sorted(Instances.concatenate(own)) for own in parts]


def _sorted(found: Instances) -> Instances:
    """The instances that have a mask by falling score, each object of a class once."""
    found = found.subset(found.masks.any(axis=(1, 2)))
    return without_repeats(found.subset(np.argsort(-found.scores, kind="stable")))


def _load(model: str) -> tuple[Any, Any]:
    from transformers import PreTrainedConfig, Sam3Model, Sam3Processor

    what = f"SAM 3 {model}"
    with loading(what, "give a folder with config.json, model.safetensors and the processor's files, or a hub id"):
        values, _ = PreTrainedConfig.get_config_dict(model)
        if (kind := values.get("model_type")) not in _KINDS:
            raise UserError(f"{model} is a model of the kind {kind!r}; give a SAM 3")
        check_model_config(values, f"{what}: config.json")
        network, loaded = Sam3Model.from_pretrained(model, use_safetensors=True, output_loading_info=True)
        check_weights(network, loaded["missing_keys"], what)
        processor = Sam3Processor.from_pretrained(model)
    return network.eval(), processor
