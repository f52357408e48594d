"""Segment Anything, tiny and random: the same classes and files as the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

import diffugen.toyworld

KINDS = ("sam", "sam_hq", "sam2", "sam3_tracker")
_WIDTH = 32
_TOKENIZER = Path(diffugen.toyworld.__file__).parent / "weights" / "pipeline" / "tokenizer"


def save_tiny_sam(folder: Path, kind: str) -> Path:
    """Write a model of a kind, and its processor, as `from_pretrained` reads them."""
    torch.manual_seed(0)
    make = {"sam": _sam, "sam_hq": _sam_hq, "sam2": _sam2, "sam3_tracker": _sam3_tracker, "sam3": _sam3}[kind]
    model, processor = make()
    for weight in model.parameters():
        if weight.ndim > 1:  # as they are initialised, no input would matter
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _decoder() -> dict[str, Any]:
    return {
        "hidden_size": _WIDTH,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    }


def _first_generation() -> tuple[dict[str, Any], dict[str, Any]]:
    vision = {
        "hidden_size": 32,
        "output_channels": _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "mlp_dim": 32,
        "num_pos_feats": _WIDTH // 2,
    }
    prompts = {"hidden_size": _WIDTH, "image_size": 64, "patch_size": 8, "image_embedding_size": 8}
    return vision, prompts


def _padding_processor() -> Any:
    return transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size=_square(64), mask_size={"longest_edge": 32}, mask_pad_size=_square(32)
    )


def _sam() -> tuple[Any, Any]:
    vision, prompts = _first_generation()
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=_decoder())
    return transformers.SamModel(config), transformers.SamProcessor(_padding_processor())


def _sam_hq() -> tuple[Any, Any]:
    vision, prompts = _first_generation()
    decoder = _decoder() | {"vit_dim": 32}
    config = transformers.SamHQConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return transformers.SamHQModel(config), transformers.SamHQProcessor(_padding_processor())


def _sam2() -> tuple[Any, Any]:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 4],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": _WIDTH,
    }
    prompts = {"hidden_size": _WIDTH, "image_size": 64, "patch_size": 16}
    config = transformers.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=_decoder()
    )
    processor = transformers.Sam2ImageProcessor(size=_square(64), mask_size=_square(16))
    return transformers.Sam2Model(config), transformers.Sam2Processor(processor, target_size=64)


def _sam3_vision() -> dict[str, Any]:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": _WIDTH,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }


def _sam3_tracker() -> tuple[Any, Any]:
    prompts = {"hidden_size": _WIDTH, "image_size": 56, "patch_size": 14}
    config = transformers.Sam3TrackerConfig(
        vision_config=_sam3_vision(), prompt_encoder_config=prompts, mask_decoder_config=_decoder()
    )
    processor = transformers.Sam3ImageProcessor(size=_square(56), mask_size=_square(16))
    return transformers.Sam3TrackerModel(config), transformers.Sam3TrackerProcessor(processor, target_size=56)


def _sam3() -> tuple[Any, Any]:
    """The one that finds what a phrase names; its tokenizer is the toy pipeline's."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(_TOKENIZER)
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "eos_token_id": tokenizer.eos_token_id,
    }
    small = {"hidden_size": _WIDTH, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.Sam3Config(
        vision_config=_sam3_vision(),
        text_config=text,
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config=small | {"num_queries": 8},
        mask_decoder_config={"hidden_size": _WIDTH, "num_attention_heads": 2},
    )
    processor = transformers.Sam3ImageProcessor(size=_square(56), mask_size=_square(16))
    return transformers.Sam3Model(config), transformers.Sam3Processor(processor, tokenizer)
