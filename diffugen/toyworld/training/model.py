"""The toy world's diffusion pipeline: Stable Diffusion's parts, small. See docs/toyworld.md for why these sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 128
CONTEXT_LENGTH = 77  # Stable Diffusion's
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """Train CLIP's byte-pair encoding until every one of `words` is a single token.

    One token per word matters: a causal text encoder moves what a split word means to its last piece.
    """
    words = sorted(set(words))
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=20_000, initial_alphabet=alphabet, end_of_word_suffix=WORD_END, show_progress=False
    )
    # words one by one, so that no leading space becomes a part of them, as in CLIP
    tokenizer.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in _merges(tokenizer)]
    pieces = alphabet + [letter + WORD_END for letter in alphabet] + ["".join(pair) for pair in merges]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """One causal layer: with two, the token AFTER a word localises better than the word itself."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=TEXT_WIDTH,
        )
    )


def build_vae() -> AutoencoderKL:
    """Factor 8, four latent channels (diffusers' inpainting asks for four), convolutional throughout."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(24, 48, 96, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        scaling_factor=1.0,  # the trained latents are normalised inside quant_conv, see train_vae.py
    )


def build_unet() -> UNet2DConditionModel:
    """Two levels, both with cross-attention, and few wide heads: narrow ones do not localise."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 4),  # the NUMBER of heads (diffusers' historical misnomer): 32 channels each
        norm_num_groups=16,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """v-prediction with a zero terminal SNR, so that night scenes come out dark (Lin et al., 2024)."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,  # unused with this spacing; diffusers warns about 0
        final_sigmas_type="zero",
    )


def build_pipeline(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """Put the parts together."""
    pipe = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
