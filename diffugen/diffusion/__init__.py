"""Diffusion pipelines: loading, prompt encoding, token positions, denoising."""
