"""Attention of a diffusion model, recorded during denoising and turned into heatmaps."""
