"""Tiny random diffusion pipelines, real in everything but size."""

from __future__ import annotations

import json

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CAPTIONS = (
    "a photo of a red car on a road at night",
    "a photo of a grand piano beside a tent in the rain",
    "two blue cars under a sky with a skyscraper, a tree and a house",
)
"""What the tiny tokenizer's pieces are learned from; other words are spelled out in letters."""

TEXT_WIDTH = 32
"""Dimensions of the tiny text encoder's embeddings."""


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
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
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
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    sharpen_attention(unet)
    pipe = StableDiffusionPipeline(
        vae=vae.eval(),
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


def sharpen_attention(unet: UNet2DConditionModel, gain: float = 3.0) -> None:
    """Random projections attend to all tokens alike; make them prefer some, as trained ones do."""
    for name, parameter in unet.named_parameters():
        if ".attn2.to_q." in name or ".attn2.to_k." in name:
            parameter.data.mul_(gain)
