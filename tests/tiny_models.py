"""Tiny random diffusion pipelines and a Mask2Former, real in everything but size."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SwinConfig,
)

CAPTIONS = (
    "a photo of a red car on a road at night",
    "a photo of a grand piano beside a tent in the rain",
    "two blue cars under a sky with a skyscraper, a tree and a house",
)
"""What the tiny tokenizer's pieces are learned from; other words are spelled out in letters."""

TEXT_WIDTH = 32
"""Dimensions of the tiny text encoder's embeddings."""

TEXT_WIDTH_2 = 48
"""Dimensions of the second text encoder's embeddings, in the tiny SDXL pipeline."""


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP BPE tokenizer with pieces for the words of `CAPTIONS` except "skyscraper", and all letters."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = [*letters, *(letter + "</w>" for letter in letters)]
    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    words = (caption.replace("skyscraper", "") for caption in CAPTIONS)
    bpe.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in _merges(bpe)]
    pieces = [*alphabet, *("".join(merge) for merge in merges), *special]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]


def build_pipeline() -> StableDiffusionPipeline:
    """A random StableDiffusionPipeline: VAE of factor 8, cross-attention at the latents' size and at half of
    it."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(_text_config(tokenizer, TEXT_WIDTH))
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,  # the number of heads, despite its name
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=4,
    )
    sharpen_attention(unet)
    pipe = StableDiffusionPipeline(
        vae=_build_vae().eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_sdxl_pipeline() -> StableDiffusionXLPipeline:
    """A random StableDiffusionXLPipeline: two text encoders of different widths, pooled conditions, several
    transformer blocks per level, unequal numbers of heads, no attention at the latents' own size."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = build_tokenizer(), build_tokenizer()
    tokenizer_2.pad_token = "!"  # as SDXL has it
    second = _text_config(tokenizer, TEXT_WIDTH_2, num_hidden_layers=2, projection_dim=16)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 2, 4),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=TEXT_WIDTH + TEXT_WIDTH_2,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    )
    sharpen_attention(unet)
    pipe = StableDiffusionXLPipeline(
        vae=_build_vae().eval(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, TEXT_WIDTH, num_hidden_layers=2)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(second).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_mask2former(class_names: Iterable[str]) -> Mask2FormerForUniversalSegmentation:
    """A random Mask2Former of two queries."""
    backbone = SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=4,
        image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    names = dict(enumerate(class_names))
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=2,
        no_object_weight=0.5,
        id2label=names,
        label2id={name: index for index, name in names.items()},
        train_num_points=256,
        dropout=0.0,
    )
    return Mask2FormerForUniversalSegmentation(config)


def _build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def _text_config(tokenizer: CLIPTokenizer, width: int, num_hidden_layers: int = 1, **options: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )


def sharpen_attention(unet: UNet2DConditionModel, gain: float = 3.0) -> None:
    """Random projections attend to all tokens alike; make them prefer some, as trained ones do."""
    for name, parameter in unet.named_parameters():
        if ".attn2.to_q." in name or ".attn2.to_k." in name:
            parameter.data.mul_(gain)
