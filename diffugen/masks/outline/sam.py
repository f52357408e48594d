"""Outlines by Segment Anything, as transformers runs it: SAM, SAM-HQ, SAM 2, and the tracker of SAM 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffugen.devices import pick_device
from diffugen.errors import UserError
from diffugen.masks.matching import mask_iou
from diffugen.masks.outline.base import Outline, OutlinePrompt
from diffugen.masks.outline.sam_prompt import box_with_context, points_of, softened_logits
from diffugen.masks.refinement import resize_masks
from diffugen.model_files import check_model_config, check_weights, loading

MIN_AGREEMENT = 0.5
"""IoU with its prompt below which a mask is of something else."""

_BATCH = 16  # objects that go through the mask decoder together
_KINDS = {
    "sam": ("SamModel", "SamProcessor"),
    "sam_hq": ("SamHQModel", "SamHQProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),  # what published checkpoints of SAM 2 and SAM 3 call themselves
    "sam3_tracker": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "sam3_tracker_video": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "sam3": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
    "sam3_video": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
}
"""The `model_type` of a config -> the classes of transformers that run it with points, boxes and masks."""


class SamOutliner:
    """Outlines by Segment Anything (Kirillov et al. 2023), prompted as SAMRefiner does (Lin et al. 2025).

    A raw coarse mask misleads SAM. What works together is points deepest inside and outside by the distance transform,
    a box with some context, and a softened mask. Of SAM's masks the best by its own estimate and by agreement with the
    prompt is taken; where even that contradicts the prompt, the prompt's mask stays.

    Args:
        model: folder in transformers' format, or a hub id.
        device: "auto", "cpu", "cuda:0".

    Raises:
        UserError: there is no such model, or it is of another kind.
    """

    def __init__(self, model: str, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.model, self.processor = _load(model)
        self.model.to(self.device)

    @torch.inference_mode()
    def outline(self, image: np.ndarray, prompts: Sequence[OutlinePrompt]) -> list[Outline]:
        """One Outline per prompt; the image is encoded once."""
        size_hw = (image.shape[0], image.shape[1])
        masks = [resize_masks(prompt.majority[None], size_hw)[0] for prompt in prompts]
        asked = [number for number, mask in enumerate(masks) if mask.any()]
        found: dict[int, Outline] = {}
        if asked:
            encoded = self._encode(image)
            for start in range(0, len(asked), _BATCH):
                part = asked[start : start + _BATCH]
                chosen = [(prompts[number], masks[number]) for number in part]
                found.update(zip(part, self._outline(image, chosen, *encoded), strict=True))
        return [found.get(number, Outline(mask.astype(np.float32))) for number, mask in enumerate(masks)]

    def _encode(self, image: np.ndarray) -> tuple[dict[str, Any], tuple[int, int], tuple[int, int]]:
        """The image's embeddings as the model's arguments; the network's size and the part of it that the image has."""
        inputs = self.processor(images=image, return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.device)
        network_hw = (pixels.shape[2], pixels.shape[3])
        shown = inputs.get("reshaped_input_sizes")  # SAM and SAM-HQ pad to a square, the later ones stretch
        shown_hw = network_hw if shown is None else (int(shown[0][0]), int(shown[0][1]))
        embeddings = self.model.get_image_embeddings(pixels)
        if isinstance(embeddings, tuple):  # SAM-HQ
            arguments = {"image_embeddings": embeddings[0], "intermediate_embeddings": list(embeddings[1])}
        else:
            arguments = {"image_embeddings": embeddings}
        return arguments, network_hw, shown_hw

    def _outline(
        self,
        image: np.ndarray,
        chosen: Sequence[tuple[OutlinePrompt, np.ndarray]],
        encoded: dict[str, Any],
        network_hw: tuple[int, int],
        shown_hw: tuple[int, int],
    ) -> list[Outline]:
        """Outlines of objects whose masks, bool [H, W], are not empty."""
        size_hw = (image.shape[0], image.shape[1])
        masks = [mask for _, mask in chosen]
        points = [points_of(mask, _others(prompt, size_hw)) for prompt, mask in chosen]
        inputs = self.processor(
            images=image,
            input_points=[[inside + outside for inside, outside in points]],
            input_labels=[[[1] * len(inside) + [0] * len(outside) for inside, outside in points]],
            input_boxes=[[box_with_context(mask) for mask in masks]],
            return_tensors="pt",
        )
        # each object is an "image" of its own: only so every one can have its own mask
        prompts = {key: inputs[key].transpose(0, 1).to(self.device) for key in ("input_points", "input_labels")}
        boxes = inputs["input_boxes"].transpose(0, 1).to(self.device)
        embeddings = encoded["image_embeddings"]
        low_hw = [4 * side for side in (embeddings[-1] if isinstance(embeddings, list) else embeddings).shape[-2:]]
        logits = torch.from_numpy(np.stack([softened_logits(mask) for mask in masks]))[:, None]
        outputs = self.model(
            **{key: _repeated(value, len(masks)) for key, value in encoded.items()},
            **prompts,
            input_boxes=boxes.float(),
            input_masks=_to_network(logits, network_hw, shown_hw, low_hw).to(self.device),
            multimask_output=True,
        )
        probabilities = _from_network(outputs.pred_masks[:, 0].float(), network_hw, shown_hw, size_hw).sigmoid()
        scores = outputs.iou_scores[:, 0].float().clamp(0, 1).cpu().numpy()
        rows = zip(probabilities.cpu().numpy(), scores, masks, strict=True)
        return [best_of(*row) for row in rows]


def best_of(probabilities: np.ndarray, scores: np.ndarray, mask: np.ndarray) -> Outline:
    """The best of SAM's masks for one prompt, or the prompt's mask where all contradict it.

    Args:
        probabilities: float32 [k, H, W].
        scores: float32 [k], the IoU that SAM expects of each.
        mask: bool [H, W], the prompt's.
    """
    agreement = mask_iou(probabilities > 0.5, mask[None])[:, 0]
    best = int(np.argmax(scores + agreement))
    if agreement[best] < MIN_AGREEMENT:
        return Outline(mask.astype(np.float32))
    return Outline(probabilities[best], float(scores[best]))


def _others(prompt: OutlinePrompt, size_hw: tuple[int, int]) -> np.ndarray | None:
    return None if prompt.others is None else resize_masks((prompt.others > 0.5)[None], size_hw)[0]


def _repeated(value: Any, count: int) -> Any:
    """Embeddings of one image, for several objects: [1, ...] to [count, ...], without a copy."""
    if isinstance(value, list):
        return [_repeated(one, count) for one in value]
    return value.expand(count, *value.shape[1:])


def _to_network(logits: Tensor, network_hw: Sequence[int], shown_hw: Sequence[int], low_hw: Sequence[int]) -> Tensor:
    """Mask logits [n, 1, H, W] of the image as the network sees it, at the size of its mask prompts."""
    shown = F.interpolate(logits, size=tuple(shown_hw), mode="bilinear", antialias=True)
    padding = (0, network_hw[1] - shown_hw[1], 0, network_hw[0] - shown_hw[0])
    padded = F.pad(shown, padding, value=float(logits.min()))
    return F.interpolate(padded, size=tuple(low_hw), mode="bilinear", antialias=True)


def _from_network(logits: Tensor, network_hw: Sequence[int], shown_hw: Sequence[int], size_hw: Sequence[int]) -> Tensor:
    """The inverse: masks [n, k, h, w] of the network at the image's size."""
    whole = F.interpolate(logits, size=tuple(network_hw), mode="bilinear")
    return F.interpolate(whole[..., : shown_hw[0], : shown_hw[1]], size=tuple(size_hw), mode="bilinear")


def _load(model: str) -> tuple[Any, Any]:
    import transformers

    what = f"Segment Anything {model}"
    with loading(what, "give a folder with config.json, model.safetensors and the processor's config, or a hub id"):
        values, _ = transformers.PreTrainedConfig.get_config_dict(model)
        kind = values.get("model_type")
        if kind not in _KINDS:
            raise UserError(f"{model} is a model of the kind {kind!r}; give a SAM, SAM-HQ, SAM 2 or SAM 3")
        check_model_config(values, f"{what}: config.json")
        network_class, processor_class = (getattr(transformers, name) for name in _KINDS[kind])
        network, loaded = network_class.from_pretrained(model, use_safetensors=True, output_loading_info=True)
        check_weights(network, loaded["missing_keys"], what)
        processor = processor_class.from_pretrained(model)
    return network.eval(), processor
